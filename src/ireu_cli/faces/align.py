"""Five landmarks, and the similarity transform that maps one face onto another."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.params import ARCFACE_LANDMARKS
from ireu_cli.values import RgbImage

Points = npt.NDArray[np.float64]
"""Landmarks in pixels: float64 (5, 2), x then y: eyes, nose, mouth corners, the viewer's left first."""


def template_points(fractions: tuple[float, ...], image: RgbImage) -> Points:
    """Convert landmarks from ten fractions of the picture to pixels of `image`."""
    height, width = image.shape[:2]
    return np.asarray(fractions, dtype=np.float64).reshape(5, 2) * (width, height)


def cropped_landmarks(margin: float) -> tuple[float, ...]:
    """The landmarks' positions in the result of `crop_face`, as ten fractions."""
    return tuple(((np.asarray(ARCFACE_LANDMARKS) + margin / 2) / (1 + margin)).tolist())


def similarity(source: Points, target: Points) -> Points:
    """Least-squares similarity from `source` to `target` (Umeyama 1991): float64 (2, 3), for `cv2.warpAffine`.

    Raises:
        BadPhotoError: the source points are all at one point, or not finite.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    if not (np.isfinite(source).all() and np.ptp(source, axis=0).max() > 1e-6):
        raise BadPhotoError("has landmarks that are all at one point or not finite")
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (singular * signs).sum() / (source - source_mean).var(0).sum()
    shift = target_mean - scale * rotation @ source_mean
    return np.hstack([scale * rotation, shift[:, None]])


def face_matrix(points: Points, size: int, margin: float) -> Points:
    """The map of `crop_face`: float64 (2, 3), from the picture to the crop.

    Raises:
        BadPhotoError: the points do not span anything.
    """
    return similarity(points, np.asarray(cropped_landmarks(margin)).reshape(5, 2) * size)


def aligned_like_insightface(image: RgbImage, points: Points, size: int) -> RgbImage:
    """Align a face as insightface does for a recogniser of this input size: uint8 (size, size, 3).

    As in insightface (2.1, `utils/face_align.py`), the template of 112 px is scaled; for sides that are multiples of
    128 and not of 112, the template of 112 px inside 128 is scaled. Pixels outside the picture are black.

    Raises:
        BadPhotoError: the points do not span anything.
    """
    whole = 128 if size % 112 else 112
    template = np.asarray(ARCFACE_LANDMARKS).reshape(5, 2) * 112 + ((whole - 112) / 2, 0)
    matrix = similarity(points, template * (size / whole))
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), borderValue=0), dtype=np.uint8)


def warp(image: RgbImage, matrix: Points, size: tuple[int, int]) -> RgbImage:
    """Map a picture to another frame, smoothly if it becomes smaller; beyond the border it is mirrored.

    `cv2.warpAffine` interpolates between four pixels and ignores all others. So a picture that becomes much smaller is
    first shrunk by a whole number; each new pixel is the mean of the pixels that it replaces.

    Args:
        image: the picture.
        matrix: float64 (2, 3), a similarity from the picture to the frame.
        size: width and height of the frame in pixels.

    Returns:
        uint8 (height, width, 3).
    """
    factor = _shrinking(image, matrix)
    if factor > 1:
        height, width = image.shape[:2]
        # Only whole blocks, so that every new pixel replaces the same number of pixels.
        padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REFLECT)
        few = (padded.shape[1] // factor, padded.shape[0] // factor)
        image = np.asarray(cv2.resize(padded, few, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        # The centre of a pixel has whole coordinates, so the centre of the first block is at (factor - 1) / 2.
        middle = matrix[:, :2].sum(1, keepdims=True) * (factor - 1) / 2
        matrix = np.hstack([matrix[:, :2] * factor, matrix[:, 2:] + middle])
    found = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(found, dtype=np.uint8)


def crop_face(image: RgbImage, points: Points, size: int, margin: float) -> tuple[RgbImage, Points]:
    """Crop the upright face: the ArcFace template, with `margin` of its side as room, split evenly around it.

    Returns:
        uint8 (size, size, 3) and the landmarks in it.

    Raises:
        BadPhotoError: the points do not span anything.
    """
    matrix = face_matrix(points, size, margin)
    return warp(image, matrix, (size, size)), points @ matrix[:, :2].T + matrix[:, 2]


def _shrinking(image: RgbImage, matrix: Points) -> int:
    """The whole number nearest to the number of pixels that become one, at most all of them."""
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    most = min(image.shape[:2])
    return most if scale * most < 1 else max(1, round(1 / scale))
