"""Check by the encoder's features whether the photos of one folder show one person, before using them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.identity import centroid, fit_space

FEWEST = 4
"""The fewest photos with which two people can be told from one."""
TOLD_APART = 0.7
"""Below this value, the two halves of a folder are hardly more similar to each other than to strangers."""
HOLDS = 0.8
"""From this value on, a half belongs together: its photos are more similar to each other than to strangers."""


@dataclass(frozen=True)
class Halves:
    """A folder's photos split in two so that the halves differ most: `first` (n,) bool marks those in the first half.

    `across`: how often a photo of one half is nearer to the other half than a stranger's photo is, 0 to 1; .5 is
    chance. `within`: the same for each photo and the rest of its own half; the lower of the two halves' values.
    """

    first: Tensor
    across: float
    within: float

    @property
    def are_two(self) -> bool:
        """Whether the halves show two people, as far as the encoder can tell."""
        return self.across < TOLD_APART and self.within >= HOLDS


def halves(photos: Tensor, others: Sequence[Tensor]) -> Halves | None:
    """Split the photos of a folder in two.

    Args:
        photos: features (n, d) of the folder's photos, from the original encoder.
        others: features (n_i, d) of each other person's photos; they fit the space and serve as strangers.

    Returns:
        None with fewer than `FEWEST` photos, without strangers, or if one half would be a single photo: one odd photo
        is not enough for another person.
    """
    strangers = torch.cat(list(others)) if others else torch.empty(0)
    if len(photos) < FEWEST or len(strangers) < FEWEST:
        return None
    space = fit_space(others)
    mapped, strange = space(photos), space(strangers)
    first = _split(mapped)
    if min(int(first.sum()), int((~first).sum())) < 2:
        return None
    parts = (mapped[first], mapped[~first])
    across = [_nearer(one, centroid(two), strange) for one, two in (parts, parts[::-1])]
    within = [_nearer_to_the_rest(part, strange) for part in parts]
    return Halves(first, sum(across) / 2, min(within))


def _split(mapped: Tensor) -> Tensor:
    """Cluster unit vectors (n, d) around two means, starting along their largest difference: (n,) bool."""
    centred = mapped - mapped.mean(0)
    first: Tensor = torch.linalg.svd(centred, full_matrices=False).U[:, 0] > 0
    for _ in range(20):
        if bool(first.all()) or not bool(first.any()):
            break
        moved = mapped @ centroid(mapped[first]) > mapped @ centroid(mapped[~first])
        if bool((moved == first).all()):
            break
        first = moved
    return first


def _nearer(photos: Tensor, person: Tensor, strangers: Tensor) -> float:
    """How often a photo is nearer to the person (d,) than a stranger's photo is."""
    ordered = (strangers @ person).sort().values
    return float(torch.searchsorted(ordered, photos @ person).double().mean() / len(ordered))


def _nearer_to_the_rest(photos: Tensor, strangers: Tensor) -> float:
    rest = [torch.arange(len(photos)) != n for n in range(len(photos))]
    return sum(_nearer(photos[~keep], centroid(photos[keep]), strangers) for keep in rest) / len(photos)
