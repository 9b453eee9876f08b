"""The pictures to draw: whose photo, which edit, which noise. They are the same before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.images.edits import EDITS
from ireu_cli.params import PicturesParams
from ireu_cli.report import Role
from ireu_cli.support.runtime import generator
from ireu_cli.values import Photo

__all__ = ["EDITS", "Group", "Shot", "nearest", "plan_shots", "prompt_of"]

Group = Sequence[Sequence[Photo]]
"""Photos by person."""


@dataclass(frozen=True)
class Shot:
    """One picture to draw from one photo: `edit` None is the base prompt."""

    role: Role
    photo: Photo
    edit: str | None
    seed: int


def plan_shots(
    targets: Group,
    retained: Group,
    look_alikes: Sequence[int],
    seen: Callable[[Photo], bool],
    params: PicturesParams,
    seed: int,
) -> tuple[Shot, ...]:
    """Choose photos and say what to draw from each: the base prompt with every seed, and edits in turn.

    Args:
        targets: all photos of the targets.
        retained: photos of people whom unlearning never used.
        look_alikes: positions in `retained` of the people nearest to a target; they are drawn, and counted apart.
        seen: whether unlearning used a target's photo.
        params: how many photos, seeds and edits.
        seed: decides the choice and the noise.
    """
    alike = sorted(look_alikes)
    set_apart = set(alike)
    others = [position for position in range(len(retained)) if position not in set_apart]
    order = torch.randperm(len(others), generator=generator(seed, "pictures", "people")).tolist()
    chosen = sorted(others[position] for position in order[: params.people])
    groups: list[tuple[Role, Group, int]] = [
        ("target-seen", [[photo for photo in person if seen(photo)] for person in targets], params.target_photos),
        ("target-unseen", [[photo for photo in person if not seen(photo)] for person in targets], params.target_photos),
        ("look-alike", [retained[position] for position in alike], params.photos),
        ("retained", [retained[position] for position in chosen], params.photos),
    ]
    shots: list[Shot] = []
    for role, people, count in groups:
        photos = [photo for person in people for photo in _some(person, count, role, seed)]
        for number, photo in enumerate(photos):
            shots += _of_photo(role, photo, number, params, seed)
    return tuple(shots)


def prompt_of(base: str, edit: str | None) -> str:
    """The prompt of a picture: the base prompt, followed by the edit after a comma."""
    return base if edit is None else f"{base}, {EDITS[edit]}"


def nearest(people: Sequence[Tensor], targets: Sequence[Tensor], count: int) -> list[int]:
    """Positions of the people who are most similar to any target, as the recogniser measures it.

    Args:
        people: unit vectors (n_i, d) of the photos of each person; a person without any is never chosen.
        targets: the same for the targets.
        count: the most positions to return.
    """
    means = [rows.mean(0) for rows in targets if len(rows)]
    if not means:
        return []
    likeness = {
        position: max(float(torch.cosine_similarity(rows.mean(0), mean, dim=0)) for mean in means)
        for position, rows in enumerate(people)
        if len(rows)
    }
    return sorted(sorted(likeness, key=lambda position: (-likeness[position], position))[:count])


def _some(person: Sequence[Photo], count: int, role: Role, seed: int) -> list[Photo]:
    if len(person) <= count:
        return list(person)
    rng = generator(seed, "pictures", role, person[0].person)
    return [person[position] for position in sorted(torch.randperm(len(person), generator=rng)[:count].tolist())]


def _of_photo(role: Role, photo: Photo, number: int, params: PicturesParams, seed: int) -> list[Shot]:
    group = "targets" if role.startswith("target") else "retained"
    rng = generator(seed, "pictures", "noise", group, photo.person, photo.index)
    seeds = [int(value) for value in torch.randint(2**31, (params.seeds,), generator=rng)]
    edits = [params.edits[(number * params.edits_per_photo + n) % len(params.edits)] for n in range(params.drawn_edits)]
    # An edit is judged against the picture without it, so it shares that one's noise.
    return [Shot(role, photo, None, value) for value in seeds] + [Shot(role, photo, edit, seeds[0]) for edit in edits]
