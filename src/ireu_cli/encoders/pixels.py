"""From pictures of faces to the pixels that face-embedding networks take."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ireu_cli.faces.align import aligned_like_insightface, template_points
from ireu_cli.values import RgbImage


def aligned_pixels(
    images: Sequence[RgbImage], landmarks: tuple[float, ...], side: int, mean: float, std: float, *, bgr: bool = False
) -> Tensor:
    """Align faces as insightface does, and scale their values: float32 (n, 3, side, side).

    Args:
        images: the pictures.
        landmarks: ten fractions that say where eyes, nose and mouth corners lie in each of them.
        side: the side of an aligned face in pixels.
        mean: what is taken from values of 0 to 255.
        std: what they are then divided by.
        bgr: whether the network takes blue first.

    Raises:
        BadPhotoError: all landmarks are at one point.
    """
    if not images:
        return torch.empty(0, 3, side, side)
    points = [template_points(landmarks, image) for image in images]
    faces = np.stack([aligned_like_insightface(image, at, side) for image, at in zip(images, points, strict=True)])
    values = ((faces[..., ::-1] if bgr else faces).astype(np.float32) - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def null_images(pixels: Callable[[Sequence[RgbImage]], Tensor], side: int) -> Tensor:
    """The zero tensor and a black picture, prepared by `pixels`: float32 (2, 3, side, side)."""
    black = pixels([np.zeros((side, side, 3), np.uint8)])
    return torch.cat([torch.zeros_like(black), black])
