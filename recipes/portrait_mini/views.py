"""Training faces as a pure function of (seed, shard): what the teachers look at, and how any frame of it is drawn.

A shard is a fixed number of faces. Nothing about a face depends on the run that asks for it, so a stopped run goes on
with exactly the faces it would have seen, and the outputs of the teachers can be kept and shared between runs. What the
student alone sees of a face (moved, recoloured, worn down, covered) is drawn by ``changes.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from faces import SIDE, Photos
from torch.nn import functional

SHARD = 2048
VERSION = 3  # of the way faces are drawn; what was kept of other versions is not used again
UNLABELLED = -1

# Rows of the similarity from the 160-pixel frame of the photos to ArcFace's 112-pixel template.
ALIGN_SCALE, ALIGN_TURN, ALIGN_X, ALIGN_Y = 0.84, 0.005, -12.0, -6.5
ALIGNED = 112


@dataclass(frozen=True)
class Views:
    """Parameters of n faces; every field has n rows."""

    photo: torch.Tensor  # (n,) the photo
    other: torch.Tensor  # (n,) the photo blended in; the same number where there is no blend
    label: torch.Tensor  # (n,) the person, or UNLABELLED for a blend of two people
    blend: torch.Tensor  # (n, 4) direction (x, y), offset and steepness of the soft border between the two faces
    flip: torch.Tensor  # (n,) 1, or -1 for a mirrored face

    def __getitem__(self, rows: slice | torch.Tensor) -> Views:
        return Views(*(getattr(self, f.name)[rows] for f in fields(self)))


class Sampler:
    """Draws the photos and parameters of a shard.

    A quarter of a shard are pairs of photos of one person (neighbours, so that each batch holds positives), the rest
    are single photos, of which three quarters are blended with another person's: new identities, of which data alone
    has too few (students that saw few blends soon knew the photos by heart). A person of n photos is drawn as often as
    the square root of n says: a third of the photos show 35 people.
    """

    def __init__(self, person: torch.Tensor, allowed: torch.Tensor, seed: int) -> None:
        self.person, self.allowed, self.seed = person, allowed, seed
        by_person: dict[int, list[int]] = {}
        for photo in allowed.tolist():
            by_person.setdefault(int(person[photo]), []).append(photo)
        self.several = [torch.tensor(photos) for photos in by_person.values() if len(photos) >= 2]
        counts = torch.bincount(person[allowed], minlength=int(person.max()) + 1)
        self.weight = counts[person[allowed]].double().rsqrt()

    def shard(self, number: int) -> Views:
        """The faces of one shard."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        pairs = torch.cat([self._pair(g) for _ in range(SHARD // 8)]).view(-1, 2)
        photo = torch.cat([pairs, self._photos(SHARD * 3 // 4, g).view(-1, 6)], 1).flatten()
        is_single = torch.tensor([False] * 2 + [True] * 6).repeat(SHARD // 8)
        blended = is_single & (torch.rand(SHARD, generator=g) < 0.75)
        other = torch.where(blended, self._photos(SHARD, g), photo)
        label = torch.where(blended, torch.tensor(UNLABELLED), self.person[photo])
        flip = torch.where(torch.rand(SHARD, generator=g) < 0.5, -1.0, 1.0)
        return Views(photo, other, label, _blend(g), flip)

    def _photos(self, count: int, g: torch.Generator) -> torch.Tensor:
        return self.allowed[torch.multinomial(self.weight, count, replacement=True, generator=g)]

    def _pair(self, g: torch.Generator) -> torch.Tensor:
        photos = self.several[int(torch.randint(len(self.several), (1,), generator=g))]
        return photos[torch.randperm(len(photos), generator=g)[:2]]


def _blend(g: torch.Generator) -> torch.Tensor:
    angle = torch.rand(SHARD, generator=g) * 2 * math.pi
    offset = torch.randn(SHARD, generator=g).clamp(-2.5, 2.5) * 0.25
    # From almost constant (both faces everywhere) to a fairly sharp border (parts of two faces).
    steep = (torch.rand(SHARD, generator=g) * 3.5 - 1.5).exp()
    return torch.stack([angle.cos(), angle.sin(), offset, steep], 1)


def centre_frame(crop: float) -> torch.Tensor:
    """Frame (2, 3) of the centre ``crop`` pixels of a photo."""
    return torch.tensor([[crop / SIDE, 0.0, 0.0], [0.0, crop / SIDE, 0.0]])


def aligned_frame() -> torch.Tensor:
    """Frame (2, 3) of the 112-pixel ArcFace template inside a photo, in [-1, 1] units: the inverse similarity."""
    forward = torch.tensor([[ALIGN_SCALE, -ALIGN_TURN, ALIGN_X], [ALIGN_TURN, ALIGN_SCALE, ALIGN_Y], [0.0, 0.0, 1.0]])
    to_pixels = torch.tensor([[ALIGNED / 2, 0, ALIGNED / 2], [0, ALIGNED / 2, ALIGNED / 2], [0, 0, 1.0]])
    to_unit = torch.tensor([[2 / SIDE, 0, -1], [0, 2 / SIDE, -1], [0, 0, 1.0]])
    inside: torch.Tensor = to_unit @ torch.linalg.inv(forward) @ to_pixels
    return inside[:2]


def square(frame: torch.Tensor) -> torch.Tensor:
    """Frames (..., 2, 3) as matrices (..., 3, 3) that can be multiplied."""
    return torch.cat([frame, torch.tensor([0.0, 0.0, 1.0]).expand(*frame.shape[:-2], 1, 3)], -2)


def spots(frame: torch.Tensor, place: torch.Tensor | None, count: int, size: int) -> torch.Tensor:
    """Where the pixels of ``frame`` (2, 3) lie in the unmoved faces -> (n, size, size, 2) in [-1, 1].

    ``place`` (n, 3, 3) says where each moved face was taken from; none leaves all where they are.
    """
    inner = frame.expand(count, 2, 3) if place is None else (place @ square(frame))[:, :2]
    return functional.affine_grid(inner, [count, 3, size, size], align_corners=False)


def render(photos: Photos, views: Views, where: torch.Tensor) -> torch.Tensor:
    """Draw the places ``where`` (n, h, w, 2) of each face -> (n, 3, h, w) in [0, 1]; mirrored beyond the border."""
    grid = where * torch.stack([views.flip, torch.ones_like(views.flip)], 1)[:, None, None]
    faces = sample(photos.batch(views.photo), grid)
    mixed = (views.photo != views.other).nonzero().flatten()
    if len(mixed):
        others = sample(photos.batch(views.other[mixed]), grid[mixed])
        x, y, offset, steep = views.blend[mixed].T[:, :, None, None]
        share = torch.sigmoid(steep * (where[mixed, ..., 0] * x + where[mixed, ..., 1] * y + offset))[:, None]
        faces[mixed] = torch.lerp(faces[mixed], others, share)
    return faces


def plain(photos: Photos, index: torch.Tensor, frame: torch.Tensor, size: int) -> torch.Tensor:
    """Photos as they are -> (n, 3, size, size) in [0, 1]."""
    return sample(photos.batch(index), spots(frame, None, len(index), size))


def sample(pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Pixels (n, 3, h, w) at places (n, h', w', 2) in [-1, 1]; beyond the border they are mirrored."""
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
