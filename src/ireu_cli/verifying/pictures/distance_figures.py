"""Figures of how far sets of drawn pictures are from photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.quality import Spread, fid, kid, kid_change
from ireu_cli.report import Definition, Figure, State

_SETS = (
    "pictures of retained people with the base prompt, and photos of other retained people; for the change, the photos "
    "they were drawn from"
)
QUALITY_DEFINITIONS = {
    "kid": Definition(
        text="Kernel Inception distance of drawn pictures to the photos, on the features named by `measure`; its "
        "change is the edited encoder's less the original's, paired by person. Comparable only within one `measure`.",
        unit="distance",
        reference=_SETS,
    ),
    "fid": Definition(
        text="Frechet distance of drawn pictures to the photos, on the same features, where there are more pictures "
        "than features.",
        unit="distance",
        reference=_SETS,
    ),
}


@dataclass(frozen=True)
class Sets:
    """Features (n_i, d) by person: `real` photos, pictures `before` and `after`, and photos of `others` not drawn."""

    real: Sequence[Tensor]
    before: Sequence[Tensor]
    after: Sequence[Tensor]
    others: Sequence[Tensor]


def scaled(sets: Sets) -> Sets:
    """Every feature vector at a root mean square of 1, for which the kernel's constants are made."""

    def unit(side: Sequence[Tensor]) -> list[Tensor]:
        return [rows * (rows.shape[-1] ** 0.5 / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)) for rows in side]

    return Sets(unit(sets.real), unit(sets.before), unit(sets.after), unit(sets.others))


def distances(generator: str, measure: str, sets: Sets) -> list[Figure]:
    """KID before, after and its change, and FID where there are pictures enough.

    Args:
        generator: who drew.
        measure: whose features they are.
        sets: features of photos and pictures.
    """
    # A person's pictures are like the person's photos, so distances are taken to other people's.
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
