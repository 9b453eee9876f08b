"""Cover parts of a face in a photo: glasses, a mask, a bar, a square. Lengths follow the face."""

import cv2
import numpy as np
import numpy.typing as npt

from ireu_cli.faces.align import Points
from ireu_cli.values import RgbImage


def face_size(points: Points) -> float:
    """The size of a face in pixels: the longer of eye distance and eyes to mouth, as turning or nodding shrinks one."""
    lengths = np.linalg.norm([points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)], axis=1)
    return max(float(lengths.max()), 1.0)


def _in_face(points: Points, places: list[tuple[float, float]]) -> Points:
    """Convert positions in the face to pixels (n, 2): (0, 0) is between the eyes, y = 1 at the mouth."""
    eyes, across = points[:2].mean(0), points[1] - points[0]
    sideways = across * (face_size(points) / max(float(np.linalg.norm(across)), 1e-6))
    return np.asarray(eyes + np.array(places) @ np.stack([sideways, points[3:].mean(0) - eyes]))


def _covered(photo: RgbImage, shapes: list[Points], colour: tuple[int, int, int]) -> RgbImage:
    """Fill polygons (n, 2) in pixels, with soft edges."""
    picture = np.array(photo, order="C")
    for shape in shapes:
        # OpenCV takes whole numbers; shift=4 makes them sixteenths of a pixel.
        cv2.fillPoly(picture, [np.rint(shape * 16).astype(np.int32)], colour, cv2.LINE_AA, shift=4)
    return picture


def with_glasses(photo: RgbImage, points: Points) -> RgbImage:
    """Two lenses, and one rim that joins them and reaches the ears."""
    turn: npt.NDArray[np.float64] = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    lens = _in_face(points, [(0.37 * float(np.cos(t)), 0.28 * float(np.sin(t)) + 0.03) for t in turn])
    rim = _in_face(points, [(-0.95, -0.13), (0.95, -0.13), (0.95, -0.04), (-0.95, -0.04)])
    aside = (points[1] - points[0]) / 2
    return _covered(photo, [lens - aside, lens + aside, rim], (25, 22, 22))


def with_mask(photo: RgbImage, points: Points) -> RgbImage:
    """A surgical mask: from the bridge of the nose over the cheeks to below the chin."""
    half = [(0.0, 0.25), (0.3, 0.36), (0.92, 0.42), (0.88, 1.0), (0.58, 1.42), (0.2, 1.58)]
    outline = half + [(-x, y) for x, y in reversed(half) if x > 0]
    return _covered(photo, [_in_face(points, outline)], (160, 190, 205))


def with_eye_bar(photo: RgbImage, points: Points) -> RgbImage:
    """A black bar over the eyes."""
    bar = _in_face(points, [(-0.95, -0.25), (0.95, -0.25), (0.95, 0.25), (-0.95, 0.25)])
    return _covered(photo, [bar], (0, 0, 0))


def with_nose_square(photo: RgbImage, points: Points) -> RgbImage:
    """A grey square over the nose."""
    corners = 0.3 * face_size(points) * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return _covered(photo, [points[2] + corners], (127, 127, 127))
