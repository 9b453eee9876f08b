"""People drawn by formulas: who somebody is, and how a photo of them turns out, are separate sets of numbers.

Eyes, nose and mouth lie near the ArcFace template, so the default landmarks fit.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from ireu_cli.support.runtime import generator
from ireu_cli.values import RgbImage

SIDE = 112
"""Side of a drawn photo in pixels."""
IDENTITY_SIZE = 20
"""Numbers in [0, 1] that make a person."""
CIRCUMSTANCE_SIZE = 10
"""Numbers in [0, 1] that make a photo: background (3), light, contrast, tilt, shift (2), smile, gaze."""
_SCALE = 2

Numbers = npt.NDArray[np.float64]


def person_numbers(seed: int, number: int) -> Numbers:
    """Who person `number` is: float64 (IDENTITY_SIZE,) in [0, 1]."""
    return torch.rand(IDENTITY_SIZE, generator=generator(seed, "person", number)).double().numpy()


def photo_numbers(seed: int, number: int, photo: int) -> Numbers:
    """How a photo turns out: float64 (CIRCUMSTANCE_SIZE,) in [0, 1]."""
    return torch.rand(CIRCUMSTANCE_SIZE, generator=generator(seed, "photo", number, photo)).double().numpy()


def draw_photo(person: Numbers, photo: Numbers) -> RgbImage:
    """Draw a person in a photo: uint8 (SIDE, SIDE, 3), RGB."""
    background = tuple(int(40 + 180 * value) for value in photo[:3])
    image = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), background)
    _face(ImageDraw.Draw(image), person, photo)
    shift = (int((photo[6] - 0.5) * 8 * _SCALE), int((photo[7] - 0.5) * 8 * _SCALE))
    turned = image.rotate((photo[5] - 0.5) * 20, Image.Resampling.BICUBIC, translate=shift, fillcolor=background)
    small = np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    lit = (small - 128) * (0.75 + 0.5 * photo[4]) + 128 + (photo[3] - 0.5) * 90
    return np.asarray(lit.clip(0, 255).round(), dtype=np.uint8)


def _face(draw: ImageDraw.ImageDraw, p: Numbers, photo: Numbers) -> None:
    skin = _mix((90, 55, 40), (245, 215, 190), p[0], p[1] * 30 - 15)
    hair = _mix((20, 15, 15), (225, 190, 110), p[2], p[3] * 80 - 30)
    width, height = 30 + 12 * p[4], 42 + 10 * p[5]
    cx, cy = 56, 66
    top = cy - height - 4 - 14 * p[6]
    _ellipse(draw, cx, cy - 8, width + 4 + 6 * p[7], (cy - 8) - top, hair)
    if p[7] > 0.5:
        _box(draw, cx - width - 5, cy - 10, cx + width + 5, cy + 40 * p[6], hair)
    _ellipse(draw, cx, cy, width, height, skin)
    _box(draw, cx - width * 0.85, cy - height - 2, cx + width * 0.85, cy - height * (0.62 + 0.2 * p[8]), hair)
    _eyes(draw, p, photo, hair)
    _nose_and_mouth(draw, p, photo, skin, hair)


def _eyes(draw: ImageDraw.ImageDraw, p: Numbers, photo: Numbers, hair: tuple[int, int, int]) -> None:
    iris = _mix((60, 35, 20), (70, 150, 210), p[9], p[10] * 60 - 30)
    size, spacing = 4 + 3 * p[11], 17.6 * (0.85 + 0.3 * p[12])
    for side in (-1, 1):
        x, y = 56 + side * spacing, 51.6
        _ellipse(draw, x, y, size * 1.5, size, (250, 250, 250))
        _ellipse(draw, x + (photo[9] - 0.5) * size, y, size * 0.75, size * 0.75, iris)
        rise = (p[13] - 0.5) * 6
        ends = [(x - side * 8, y - size - 4 + rise), (x + side * 8, y - size - 4 - rise)]
        draw.line([(a * _SCALE, b * _SCALE) for a, b in ends], fill=hair, width=round((1 + 4 * p[14]) * _SCALE))
        if p[19] > 0.7:
            box = [(x - 10) * _SCALE, (y - 8) * _SCALE, (x + 10) * _SCALE, (y + 8) * _SCALE]
            draw.ellipse(box, outline=(20, 20, 20), width=_SCALE)


def _nose_and_mouth(
    draw: ImageDraw.ImageDraw, p: Numbers, photo: Numbers, skin: tuple[int, int, int], hair: tuple[int, int, int]
) -> None:
    shade = tuple(int(value * 0.8) for value in skin)
    tip, wide = 66 + 8 * p[15], 3 + 5 * p[16]
    points = [(56, 54), (56 - wide, tip), (56 + wide, tip)]
    draw.polygon([(a * _SCALE, b * _SCALE) for a, b in points], fill=shade)
    mouth, thick, bend = 9 + 9 * p[17], 2 + 4 * p[18], (photo[8] - 0.5) * 12
    lips = [(56 + mouth * t, 92 - bend * (1 - t * t) * -1) for t in np.linspace(-1, 1, 9)]
    if p[19] < 0.3:
        _ellipse(draw, 56, 98, mouth + 8, 11, hair)
    draw.line(
        [(a * _SCALE, b * _SCALE) for a, b in lips], fill=(170, 60, 70), width=round(thick * _SCALE), joint="curve"
    )


def _mix(dark: tuple[int, int, int], light: tuple[int, int, int], share: float, warm: float) -> tuple[int, int, int]:
    r, g, b = (a + (c - a) * share for a, c in zip(dark, light, strict=True))
    return tuple(int(min(255, max(0, math.floor(value)))) for value in (r + warm, g, b - warm))  # type: ignore[return-value]


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
    draw.ellipse([(x - rx) * _SCALE, (y - ry) * _SCALE, (x + rx) * _SCALE, (y + ry) * _SCALE], fill=fill)


def _box(
    draw: ImageDraw.ImageDraw, left: float, top: float, right: float, low: float, fill: tuple[int, int, int]
) -> None:
    if low > top:
        draw.rectangle([left * _SCALE, top * _SCALE, right * _SCALE, low * _SCALE], fill=fill)
