"""What the student alone sees of a face: moved, recoloured, covered, worn down, as people do to photos and cameras do.

The teachers answer for the face where it belongs and as it was; the student has to give the same answer for what is
left of it. Everything is drawn from the generator that is passed in, so a batch follows from its seed.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

Draw = torch.Generator


@dataclass(frozen=True)
class Reach:
    """How far a face is moved: sides are shares of the photo's."""

    moved: float  # share of faces that are moved at all
    turn: float  # degrees to either side
    closest: float  # side of the tightest crop
    widest: float  # side of the widest view; more than one is mirrored at the border
    shift: float


WIDE = Reach(0.75, 25, 0.65, 1.3, 0.15)
"""For an encoder that takes the photo as it comes."""
ALIGNED_FACE = Reach(0.75, 8, 0.88, 1.12, 0.05)
"""For a network that is given aligned faces: what a detector of landmarks gets wrong."""


EASY, FULL = 25_600, 256_000
"""Until so many faces were seen they are left as they are; from the second number on they are changed as far as ever.

Students that saw far changes from the start told nobody apart after 25,600 faces, where others had long begun to.
"""


def strength(seen: int) -> float:
    """How far faces are changed after so many: 0 to 1."""
    return min(1.0, max(0.0, (seen - EASY) / (FULL - EASY)))


def places(count: int, reach: Reach, g: Draw, strength: float = 1.0) -> torch.Tensor:
    """Where each face is taken from -> (count, 3, 3), in [-1, 1] of the photo; ``strength`` shortens all ways."""
    moved = (torch.rand(count, generator=g) < reach.moved).float() * strength
    angle = _between(-1, 1, count, g) * math.radians(reach.turn) * moved
    low, high = math.log(reach.closest), math.log(reach.widest)
    side = (_between(low, high, count, g) * moved).exp()
    shift = (torch.rand(count, 2, generator=g) * 2 - 1) * 2 * reach.shift * moved[:, None]
    cos, sin, zero = side * angle.cos(), side * angle.sin(), torch.zeros(count)
    rows = [[cos, -sin, shift[:, 0]], [sin, cos, shift[:, 1]], [zero, zero, zero + 1]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def change(
    faces: torch.Tensor, where: torch.Tensor, flip: torch.Tensor, g: Draw, strength: float = 1.0
) -> torch.Tensor:
    """Change pixels (n, 3, s, s) in [0, 1] in place; ``where`` (n, s, s, 2) are their places in the unmoved face.

    A quarter is left as it is, more where ``strength`` is less than 1. Of the rest, each is covered, recoloured and
    worn down by chance, often several at once.
    """
    touched = torch.rand(len(faces), generator=g) < 0.75 * strength
    _cover(faces, where, flip, touched, g)
    _recolour(faces, touched, g)
    _wear_down(faces, touched, g)
    return faces


def _between(low: float, high: float, count: int, g: Draw) -> torch.Tensor:
    return torch.rand(count, generator=g) * (high - low) + low


def _rows(touched: torch.Tensor, share: float, g: Draw) -> torch.Tensor:
    return (touched & (torch.rand(len(touched), generator=g) < share)).nonzero().flatten()


# Places in the photo's frame, in [-1, 1]: eyes, nose and mouth lie at the same spot in all photos, give or take.
EYE_Y, EYE_LEFT, EYE_RIGHT, NOSE_Y, MOUTH_Y, MIDDLE = -0.144, -0.25, 0.275, 0.19, 0.43, 0.013


def _cover(faces: torch.Tensor, where: torch.Tensor, flip: torch.Tensor, touched: torch.Tensor, g: Draw) -> None:
    """Glasses, masks, bars and squares over what a tenth to a half of the faces show."""
    rows = _rows(touched, 0.3, g)
    kind = torch.randint(6, (len(rows),), generator=g)
    for number, shape in enumerate((_glasses, _mask, _bar, _square, _square, _edge)):
        some = rows[kind == number]
        if len(some):
            # Places are given for the face as photographed; a mirrored face has its eyes on the other side.
            x, y = where[some, ..., 0] * flip[some, None, None], where[some, ..., 1]
            inside = shape(x, y, g)[:, None]
            colour = _colours(len(some), number, g)
            faces[some] = torch.where(inside, colour[:, :, None, None], faces[some])


def _colours(count: int, number: int, g: Draw) -> torch.Tensor:
    """Glasses and bars are mostly dark, masks mostly light, squares anything."""
    low, high = ((0.0, 0.25), (0.4, 1.0), (0.0, 0.2), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0))[number]
    grey = _between(low, high, count, g)[:, None]
    tint = torch.randn(count, 3, generator=g) * 0.06
    return (grey + tint).clamp(0, 1)


def _jitter(count: int, spread: float, g: Draw) -> torch.Tensor:
    return (torch.randn(count, generator=g).clamp(-2, 2) * spread)[:, None, None]


def _glasses(x: torch.Tensor, y: torch.Tensor, g: Draw) -> torch.Tensor:
    n = len(x)
    y = y - EYE_Y - 0.01 - _jitter(n, 0.02, g)
    wide, high = _between(0.15, 0.24, n, g)[:, None, None], _between(0.09, 0.18, n, g)[:, None, None]
    lens = torch.zeros_like(x, dtype=torch.bool)
    for centre in (EYE_LEFT, EYE_RIGHT):
        lens |= ((x - centre) / wide).square() + (y / high).square() < 1
    return lens | (((x - MIDDLE).abs() < 0.55) & ((y + 0.06).abs() < 0.03))


def _mask(x: torch.Tensor, y: torch.Tensor, g: Draw) -> torch.Tensor:
    n = len(x)
    top, across = 0.02 + _jitter(n, 0.05, g), _between(0.42, 0.6, n, g)[:, None, None]
    below = (y - top) - 0.25 * (x - MIDDLE).square()
    return (below > 0) & (((x - MIDDLE) / across).square() + ((y - 0.42) / 0.48).square() < 1)


def _bar(x: torch.Tensor, y: torch.Tensor, g: Draw) -> torch.Tensor:
    high = _between(0.05, 0.16, len(x), g)[:, None, None]
    at = torch.where(torch.rand(len(x), generator=g) < 0.7, EYE_Y, MOUTH_Y)[:, None, None]
    return ((y - at - _jitter(len(x), 0.03, g)).abs() < high) & ((x - MIDDLE).abs() < 0.6)


def _square(x: torch.Tensor, y: torch.Tensor, g: Draw) -> torch.Tensor:
    n = len(x)
    wide, high = _between(0.08, 0.35, n, g)[:, None, None], _between(0.08, 0.35, n, g)[:, None, None]
    return ((x - _between(-0.7, 0.7, n, g)[:, None, None]).abs() < wide) & (
        (y - _between(-0.6, 0.7, n, g)[:, None, None]).abs() < high
    )


def _edge(x: torch.Tensor, y: torch.Tensor, g: Draw) -> torch.Tensor:
    """One side of the picture, as far as a third of the face."""
    angle = _between(0, 2 * math.pi, len(x), g)[:, None, None]
    return x * angle.cos() + y * angle.sin() > _between(0.2, 0.8, len(x), g)[:, None, None]


def _recolour(faces: torch.Tensor, touched: torch.Tensor, g: Draw) -> None:
    """Light, gamma, contrast, casts, hue, saturation and grey; mild for most, strong for some."""
    n = len(faces)
    strong = touched & (torch.rand(n, generator=g) < 0.3)
    light = torch.where(strong, _between(math.log(0.35), math.log(1.8), n, g), _mild(n, 0.12, g)).exp()
    gamma = torch.where(
        touched & (torch.rand(n, generator=g) < 0.2), _between(-0.75, 0.75, n, g), _mild(n, 0.12, g)
    ).exp()
    spread = torch.where((torch.rand(n, generator=g) < 0.2)[:, None], 0.18, 0.04)
    gains = light[:, None] * (torch.randn(n, 3, generator=g).clamp(-2, 2) * spread).exp()
    gains[~touched], gamma[~touched] = 1.0, 1.0
    faces.clamp_(1e-3, 1).pow_(gamma[:, None, None, None]).mul_(gains[:, :, None, None]).clamp_(0, 1)
    rows = _rows(touched, 0.25, g)
    if len(rows):
        middle = faces[rows].mean((1, 2, 3), keepdim=True)
        faces[rows] = torch.lerp(middle, faces[rows], _between(0.45, 1.7, len(rows), g)[:, None, None, None])
    rows = _rows(touched, 0.5, g)
    if len(rows):
        saturation = _between(0.3, 1.6, len(rows), g)
        saturation[torch.rand(len(rows), generator=g) < 0.25] = 0.0
        grey = (faces[rows] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        faces[rows] = torch.lerp(grey, faces[rows], saturation[:, None, None, None])
    rows = _rows(touched, 0.12, g)
    if len(rows):
        faces[rows] = torch.einsum("nij,njhw->nihw", _hue(len(rows), g), faces[rows])
    faces.clamp_(0, 1)


def _mild(count: int, spread: float, g: Draw) -> torch.Tensor:
    return torch.randn(count, generator=g).clamp(-2.5, 2.5) * spread


def _hue(count: int, g: Draw) -> torch.Tensor:
    """Turns about the grey axis by up to 35 degrees -> (count, 3, 3)."""
    angle = _between(-1, 1, count, g) * math.radians(35)
    third, root = 1 / 3, 3**-0.5
    on, before, after = (
        angle.cos() + third * (1 - angle.cos()),
        third * (1 - angle.cos()) - root * angle.sin(),
        third * (1 - angle.cos()) + root * angle.sin(),
    )
    rows = [[on, before, after], [after, on, before], [before, after, on]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def _wear_down(faces: torch.Tensor, touched: torch.Tensor, g: Draw) -> None:
    """Blur, down-and-up, noise and JPEG, in this order."""
    side = faces.shape[-1]
    for row in _rows(touched, 0.15, g).tolist():
        width = float(_between(0.5, 3.5, 1, g)) * side / 112
        faces[row] = torch.from_numpy(
            np.ascontiguousarray(cv2.GaussianBlur(_as_picture(faces[row]), (0, 0), width).transpose(2, 0, 1))
        )
    for row in _rows(touched, 0.15, g).tolist():
        small = max(8, round(side / float(_between(1.5, 4.5, 1, g))))
        less = functional.interpolate(faces[row][None], (small, small), mode="area")
        faces[row] = functional.interpolate(less, (side, side), mode="bilinear", align_corners=False)[0]
    rows = _rows(touched, 0.15, g)
    if len(rows):
        deviation = _between(2, 28, len(rows), g)[:, None, None, None] / 255
        faces[rows] += torch.randn(len(rows), *faces.shape[1:], generator=g) * deviation
        faces.clamp_(0, 1)
    for row in _rows(touched, 0.4, g).tolist():
        faces[row] = _jpeg(faces[row], int(torch.randint(8, 96, (1,), generator=g)))


def _as_picture(face: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ascontiguousarray(face.numpy().transpose(1, 2, 0))


def _jpeg(face: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(np.rint(_as_picture(face) * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as picture:
        return torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1) / 255)
