"""The gallery of retained people and the enrolments of people, each built once for all comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.identity import Enrolment as Enrolment
from ireu_cli.maths.identity import centroid, enrol


@dataclass(frozen=True)
class Gallery:
    """Photos of retained people that show a face: unit `vectors` (n, d) and the person of each, (n,).

    `people` are the positions of people with such photos, (p,); `enrolments` (p, d) are the means of their photos;
    float64.
    """

    vectors: Tensor
    owner: Tensor
    people: Tensor
    enrolments: Tensor

    def without(self, position: int | None) -> Tensor:
        """The vectors of all but one person."""
        return self.vectors if position is None else self.vectors[self.owner != position]


def gallery_of(photos: Sequence[Tensor]) -> Gallery:
    """Build the gallery of retained people.

    Args:
        photos: unit vectors (k, d) of each person's photos; no rows for people without a face.
    """
    people = [place for place, rows in enumerate(photos) if len(rows)]
    if not people:
        none = torch.empty(0, dtype=torch.int64)
        return Gallery(torch.empty(0, 0, dtype=torch.float64), none, none, torch.empty(0, 0, dtype=torch.float64))
    known = [photos[place].double() for place in people]
    places = torch.tensor(people)
    owner = places.repeat_interleave(torch.tensor([len(rows) for rows in known]))
    return Gallery(torch.cat(known), owner, places, torch.stack([centroid(rows) for rows in known]))


def enrolled(photos: Tensor, gallery: Gallery, rate: float, position: int | None = None) -> Enrolment | None:
    """Enrol a person for comparison with pictures; None without a photo that shows a face, or without other people.

    Args:
        photos: unit vectors (k, d) of the person's photos, which are averaged.
        gallery: retained people, whose photos set the threshold.
        rate: false-match rate.
        position: the person's place among the retained people; None for a target.
    """
    others = gallery.without(position)
    return enrol(photos, others, rate) if len(photos) and len(others) else None


def matched(vectors: Tensor, enrolment: Enrolment | None) -> Tensor:
    """Whether pictures match a person: float64 (n,), 1 or 0; NaN without a face or without an enrolment.

    Args:
        vectors: unit vectors (n, d) of the pictures; NaN without a face.
        enrolment: the person.
    """
    if enrolment is None:
        return torch.full((len(vectors),), torch.nan, dtype=torch.float64)
    return enrolment.matches(vectors)
