"""Figures of the distance between sets of drawn pictures and photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.quality import Spread, fid, kid, kid_change
from ireu_cli.report import Definition, Figure, State

_SETS = (
    "pictures of retained people with the base prompt, and photos of other retained people; for the change, also the "
    "photos that they were drawn from"
)
QUALITY_DEFINITIONS = {
    "kid": Definition(
        text="Kernel Inception distance between drawn pictures and photos, on the features named by `measure`. Its "
        "change is the value with the edited encoder minus the value with the original, paired by person. "
        "Compare only values with the same `measure`.",
        unit="distance",
        reference=_SETS,
    ),
    "fid": Definition(
        text="Frechet distance between drawn pictures and photos, on the same features, if there are more pictures "
        "than features.",
        unit="distance",
        reference=_SETS,
    ),
}


@dataclass(frozen=True)
class Sets:
    """Features (n_i, d) by person: `real` photos, pictures `before` and `after`, and photos of undrawn `others`."""

    real: Sequence[Tensor]
    before: Sequence[Tensor]
    after: Sequence[Tensor]
    others: Sequence[Tensor]


def scaled(sets: Sets) -> Sets:
    """Scale every feature vector to a root mean square of 1, which the kernel's constants assume."""

    def unit(side: Sequence[Tensor]) -> list[Tensor]:
        return [rows * (rows.shape[-1] ** 0.5 / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)) for rows in side]

    return Sets(unit(sets.real), unit(sets.before), unit(sets.after), unit(sets.others))


def distances(generator: str, measure: str, sets: Sets) -> list[Figure]:
    """KID before and after and its change, and FID if there are enough pictures.

    Args:
        generator: the generator that drew.
        measure: the source of the features.
        sets: features of photos and pictures.
    """
    # A person's pictures are similar to the person's own photos, so distances are measured to other people's photos.
    none = [sets.real[0][:0]]
    far = [*none * len(sets.before), *sets.others]
    sides = {
        state: [*side, *none * len(sets.others)] for state, side in (("before", sets.before), ("after", sets.after))
    }
    found: list[tuple[str, State, Spread | None]] = [
        ("kid", "original", kid(far, sides["before"])),
        ("kid", "edited", kid(far, sides["after"])),
        ("kid", "change", kid_change(sets.real, sets.before, sets.after)),
        ("fid", "original", fid(far, sides["before"])),
        ("fid", "edited", fid(far, sides["after"])),
    ]
    return [
        Figure(
            name=name,
            role="retained",
            state=state,
            measure=measure,
            generator=generator,
            value=spread.value,
            low=spread.low,
            high=spread.high,
            photos=spread.photos,
            people=spread.people,
            unit="distance",
        )
        for name, state, spread in found
        if spread is not None
    ]
