"""Faces that a generator drew: the picture, what the judges saw in it, and its similarity to a photo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ireu_cli.judges.recogniser import ALIGNED, Recogniser
from ireu_cli.maths.images.warp import warp
from ireu_cli.values import RgbImage


@dataclass(frozen=True)
class Drawing:
    """A drawn picture, with the recogniser's unit vector and the landmarks (5, 2) in pixels; None without a face."""

    picture: RgbImage
    face: Tensor | None
    landmarks: npt.NDArray[np.floating] | None


Draw = Callable[[Tensor, Sequence[int]], list[Drawing]]
"""A function from features (n, …, d) and a seed each to pictures, always with the same prompt."""

Likeness = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function that draws one picture from each row of features (draws, …, d).

It returns two tensors (draws,): the similarity of picture and photo, with gradients, and whether the picture has a
face. Without a face, the similarity means nothing."""


def similarity(pictures: Tensor, matrices: Tensor, photo: Tensor, recogniser: Recogniser) -> Tensor:
    """Cosine between drawn faces and a photo, with gradients back to the pictures.

    Args:
        pictures: float (n, 3, side, side), RGB in [0, 1].
        matrices: float64 (n, 2, 3), from each picture to the recogniser's aligned face; no gradient flows through them.
        photo: unit vector (d,) of the photo.
        recogniser: computes the vectors.

    Returns:
        Float (n,) on the CPU.
    """
    faces = recogniser.embed(warp(pictures, matrices, ALIGNED))
    return (faces @ photo.to(faces)).cpu()
