"""Pictures that generators drew before and after the edit, as one recogniser sees them.

A photo or picture without a face has no vector (NaN).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ireu_cli.measuring.galleries import Enrolment, Gallery, enrolled, gallery_of
from ireu_cli.report import Role


@dataclass(frozen=True)
class PersonPictures:
    """The n pictures of one person in one role, before and after the edit, as one recogniser sees them.

    `position` is the person's place among the retained people, None for a target. Unit vectors: `photos` (k, d) of all
    of the person's photos that show a face; `own` (n, d) of the photo behind each picture; `original` and `edited`
    (n, d) of the pictures; rows are NaN where there is no face.
    `photo_numbers` (n,) says which pictures come from the same photo. `psnr` and `ssim` (n,) compare the states.
    `edits` (n,) names the edit in the prompt, and `adheres` (n, 2) says whether the picture shows it before and after:
    1, 0, or NaN if it cannot be measured. `found` (n, 2) bool says whether the face check finds a face, before and
    after; None means that a face is found wherever there is a vector.
    """

    position: int | None
    photos: Tensor
    own: Tensor
    original: Tensor
    edited: Tensor
    photo_numbers: Tensor
    psnr: Tensor
    ssim: Tensor
    edits: Sequence[str | None]
    adheres: Tensor
    found: Tensor | None = None

    @property
    def faces(self) -> Tensor:
        """Whether each picture shows a face, before and after: bool (n, 2)."""
        if self.found is not None:
            return self.found
        return torch.stack([torch.isfinite(vectors).all(1) for vectors in (self.original, self.edited)], 1)


@dataclass(frozen=True)
class GeneratorEvidence:
    """All pictures of one generator, as one recogniser sees them.

    `retained_photos`: unit vectors (k, d) of each retained person's photos. `target_photos`: the same for the targets.
    `first`: whether figures that need no recogniser are taken from this evidence, and not from that of another
    recogniser.
    """

    generator: str
    recogniser: str
    groups: Mapping[Role, Sequence[PersonPictures]]
    retained_photos: Sequence[Tensor]
    target_photos: Sequence[Tensor] = ()
    first: bool = True
    _enrolled: dict[tuple[int | None, int, float], Enrolment | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def gallery(self) -> Gallery:
        """The gallery of retained people, built once for all comparisons."""
        return gallery_of(self.retained_photos)

    def enrolment(self, person: PersonPictures, rate: float) -> Enrolment | None:
        """The person's enrolment for comparison with pictures, built once; None without a face or other people."""
        known = (person.position, id(person.photos), rate)
        if known not in self._enrolled:
            self._enrolled[known] = enrolled(person.photos, self.gallery, rate, person.position)
        return self._enrolled[known]
