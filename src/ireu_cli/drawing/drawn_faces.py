"""Faces that a generator drew: the picture with what the judges saw in it, and how like a photo it is."""

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
"""Features (n, …, d) and a seed each to pictures; always the same prompt."""

Likeness = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Features (draws, …, d), one picture each, to the similarity of picture and photo (draws,), with gradients, and bool
(draws,): whether the picture has a face. Where it has none, the similarity means nothing."""


def similarity(pictures: Tensor, matrices: Tensor, photo: Tensor, recogniser: Recogniser) -> Tensor:
    """Cosine between drawn faces and a photo, with gradients back to the pictures.

    Args:
        pictures: float (n, 3, side, side), RGB in [0, 1].
        matrices: float64 (n, 2, 3), from each picture to the recogniser's aligned face; taken as given.
        photo: unit vector (d,) of the photo.
        recogniser: measures.

    Returns:
        Float (n,) on the CPU.
    """
    faces = recogniser.embed(warp(pictures, matrices, ALIGNED))
    return (faces @ photo.to(faces)).cpu()
