"""Augmented views as a pure function of (seed, shard): what teacher and student see is drawn from the same parameters.

A shard is a fixed number of views. Nothing about a view depends on the run that asks for it, so a stopped run goes on
with exactly the views it would have seen, and the outputs of the teacher can be kept and shared between runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from faces import SIDE, Photos
from torch.nn import functional

SHARD = 2048
VERSION = 2  # of the way views are drawn; what was kept of other versions is not used again
UNLABELLED = -1

# Rows of the similarity from the 160-pixel frame of the photos to ArcFace's 112-pixel template.
ALIGN_SCALE, ALIGN_TURN, ALIGN_X, ALIGN_Y = 0.84, 0.005, -12.0, -6.5
ALIGNED = 112


@dataclass(frozen=True)
class Views:
    """Parameters of n views; every field has n rows."""

    photo: torch.Tensor  # (n,) the photo
    other: torch.Tensor  # (n,) the photo blended in; the same number where there is no blend
    label: torch.Tensor  # (n,) the person, or UNLABELLED for a blend of two people
    blend: torch.Tensor  # (n, 4) direction (x, y), offset and steepness of the soft border between the two faces
    place: torch.Tensor  # (n, 2, 3) from the view's frame to the photo's, both in [-1, 1]
    tone: torch.Tensor  # (n, 5) gamma, gains of R, G, B, saturation
    lift: torch.Tensor  # (n,) added brightness
    blur: torch.Tensor  # (n,) share of a 5 x 5 box blur
    hide: (
        torch.Tensor
    )  # (n, 5) centre, half width, half height of an occluded rectangle, grey level; no area: nothing hidden

    def __getitem__(self, rows: slice) -> Views:
        return Views(*(getattr(self, f.name)[rows] for f in fields(self)))


class Sampler:
    """Draws the photos and parameters of a shard.

    A quarter of a shard are pairs of photos of one person (neighbours, so that each batch holds positives), the rest
    are single photos, of which three quarters are blended with another person's: new identities, of which data alone
    has too few (students that saw few blends soon knew the photos by heart).
    """

    def __init__(self, person: torch.Tensor, allowed: torch.Tensor, seed: int) -> None:
        self.person, self.allowed, self.seed = person, allowed, seed
        by_person: dict[int, list[int]] = {}
        for photo in allowed.tolist():
            by_person.setdefault(int(person[photo]), []).append(photo)
        self.several = [torch.tensor(photos) for photos in by_person.values() if len(photos) >= 2]

    def shard(self, number: int) -> Views:
        """The views of one shard."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        pairs = torch.cat([self._pair(g) for _ in range(SHARD // 8)]).view(-1, 2)
        singles = self.allowed[torch.randint(len(self.allowed), (SHARD * 3 // 4,), generator=g)].view(-1, 6)
        photo = torch.cat([pairs, singles], 1).flatten()
        is_single = torch.tensor([False] * 2 + [True] * 6).repeat(SHARD // 8)
        blended = is_single & (torch.rand(SHARD, generator=g) < 0.75)
        other = self.allowed[torch.randint(len(self.allowed), (SHARD,), generator=g)]
        other = torch.where(blended, other, photo)
        label = torch.where(blended, torch.tensor(UNLABELLED), self.person[photo])
        return Views(photo, other, label, _blend(g), _place(g), *_tone(g), _hide(g))

    def _pair(self, g: torch.Generator) -> torch.Tensor:
        photos = self.several[int(torch.randint(len(self.several), (1,), generator=g))]
        return photos[torch.randperm(len(photos), generator=g)[:2]]


def _uniform(g: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(SHARD, *shape, generator=g) * (high - low) + low


def _normal(g: torch.Generator, scale: float, *shape: int) -> torch.Tensor:
    return torch.randn(SHARD, *shape, generator=g).clamp(-2.5, 2.5) * scale


def _blend(g: torch.Generator) -> torch.Tensor:
    angle = _uniform(g, 0, 2 * math.pi)
    # From almost constant (both faces everywhere) to a fairly sharp border (parts of two faces).
    return torch.stack([angle.cos(), angle.sin(), _normal(g, 0.25), _uniform(g, -1.5, 2.0).exp()], 1)


def _place(g: torch.Generator) -> torch.Tensor:
    angle, scale, shift = _normal(g, math.radians(5)), _normal(g, 0.05).exp(), _normal(g, 0.035, 2)
    flip = torch.where(torch.rand(SHARD, generator=g) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack(
        [torch.stack([flip * cos, -sin, shift[:, 0]], 1), torch.stack([flip * sin, cos, shift[:, 1]], 1)], 1
    )


def _tone(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    gamma, gains = _normal(g, 0.2, 1).exp(), (_normal(g, 0.15, 1) + _normal(g, 0.05, 3)).exp()
    grey = torch.rand(SHARD, 1, generator=g) < 0.1
    saturation = torch.where(grey, 0.0, _uniform(g, 0.6, 1.4, 1))
    blurred = torch.rand(SHARD, generator=g) < 0.15
    return torch.cat([gamma, gains, saturation], 1), _normal(g, 0.05), torch.where(blurred, _uniform(g, 0.3, 1.0), 0.0)


def _hide(g: torch.Generator) -> torch.Tensor:
    hidden = torch.rand(SHARD, 1, generator=g) < 0.1
    size = torch.where(hidden, _uniform(g, 0.1, 0.35, 2), 0.0)
    return torch.cat([_uniform(g, -0.9, 0.9, 2), size, _uniform(g, 0, 1, 1)], 1)


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


def render(photos: Photos, views: Views, frame: torch.Tensor, size: int) -> torch.Tensor:
    """Draw the part ``frame`` (2, 3) of each view at ``size`` pixels -> (n, 3, size, size) in [0, 1]."""
    inner = torch.cat([frame, torch.tensor([[0.0, 0.0, 1.0]])])
    grid = functional.affine_grid(views.place @ inner, [len(views.photo), 3, size, size], align_corners=False)
    faces = _sample(photos.batch(views.photo), grid)
    # Positions inside the view, the same for every frame, so that a border or an occlusion falls on one spot.
    spot = functional.affine_grid(frame[None], [1, 3, size, size], align_corners=False)[0]
    mixed = (views.photo != views.other).nonzero().flatten()
    if len(mixed):
        others = _sample(photos.batch(views.other[mixed]), grid[mixed])
        x, y, offset, steep = views.blend[mixed].T[:, :, None, None]
        share = torch.sigmoid(steep * (spot[..., 0] * x + spot[..., 1] * y + offset))[:, None]
        faces[mixed] = torch.lerp(faces[mixed], others, share)
    return _hidden(_toned(faces, views), views.hide, spot)


def plain(photos: Photos, index: torch.Tensor, frame: torch.Tensor, size: int) -> torch.Tensor:
    """Photos without augmentation -> (n, 3, size, size) in [0, 1]."""
    grid = functional.affine_grid(frame.expand(len(index), 2, 3), [len(index), 3, size, size], align_corners=False)
    return _sample(photos.batch(index), grid)


def _sample(pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _toned(faces: torch.Tensor, views: Views) -> torch.Tensor:
    gamma, gains, saturation = views.tone[:, :1], views.tone[:, 1:4], views.tone[:, 4:]
    faces = (
        faces.clamp_(1e-3, 1)
        .pow_(gamma[..., None, None])
        .mul_(gains[..., None, None])
        .add_(views.lift[:, None, None, None])
    )
    faces = torch.lerp(faces.mean(1, keepdim=True), faces, saturation[..., None, None])
    blurred = (views.blur > 0).nonzero().flatten()
    if len(blurred):
        soft = functional.avg_pool2d(functional.pad(faces[blurred], (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        faces[blurred] = torch.lerp(faces[blurred], soft, views.blur[blurred, None, None, None])
    return faces.clamp_(0, 1)


def _hidden(faces: torch.Tensor, hide: torch.Tensor, spot: torch.Tensor) -> torch.Tensor:
    rows = (hide[:, 2] > 0).nonzero().flatten()
    if len(rows):
        x, y, w, h, grey = hide[rows].T[:, :, None, None]
        inside = ((spot[..., 0] - x).abs() < w) & ((spot[..., 1] - y).abs() < h)
        faces[rows] = torch.where(inside[:, None], grey[:, None], faces[rows])
    return faces
