"""Face swapping, F(context, identity): one person's photo with another person's face.

`blend` is built in and needs no model: landmark-aligned warp, then Poisson blending (Pérez et al. 2003, OpenCV's
`seamlessClone`). If you have an insightface inswapper (`ireu_cli.faces.insight`), it gives better pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ireu_cli.faces.align import Points, similarity, warp
from ireu_cli.values import RgbImage


@dataclass(frozen=True)
class Face:
    """A photo and the landmarks of its face."""

    image: RgbImage
    points: Points


FaceSwap = Callable[[Face, Face], RgbImage]
"""A function from (context, identity) to a picture of the context's size."""

_ROOM = 3
"""The pixels between the blended region and the border; `seamlessClone` needs the region inside the picture.
"""


_SPILL = 9
"""Width in pixels of the ring around the region in which the seam may fade out."""


def blend(context: Face, identity: Face) -> RgbImage:
    """Put the identity's face into the context's photo, keeping the context's light along the seam."""
    height, width = context.image.shape[:2]
    matrix = similarity(identity.points, context.points)
    warped = warp(identity.image, matrix, (width, height))
    region = face_region(context)
    if not region.any():
        return context.image
    x, y, w, h = cv2.boundingRect(region)
    centre = (x + w // 2, y + h // 2)
    cloned = cv2.seamlessClone(warped, context.image, region.copy(), centre, cv2.NORMAL_CLONE)
    # The solver overwrites its mask, works on the bounding box, and spills a few grey levels over the seam.
    kept = cv2.dilate(region, np.ones((_SPILL, _SPILL), np.uint8)) == 0
    cloned[kept] = context.image[kept]
    return np.asarray(cloned, dtype=np.uint8)


def face_region(face: Face) -> RgbImage:
    """Mark the face from brows to chin: uint8 (height, width), 255 inside an ellipse set by eyes and mouth."""
    height, width = face.image.shape[:2]
    eyes, mouth = face.points[:2].mean(0), face.points[3:].mean(0)
    down, across = mouth - eyes, face.points[1] - face.points[0]
    region = np.zeros((height, width), np.uint8)
    axes = (round(0.9 * float(np.linalg.norm(across))), round(1.05 * float(np.linalg.norm(down))))
    tilt = float(np.degrees(np.arctan2(across[1], across[0])))
    middle = eyes + 0.5 * down
    cv2.ellipse(region, (round(middle[0]), round(middle[1])), axes, tilt, 0, 360, 255, -1)
    region[:_ROOM], region[-_ROOM:], region[:, :_ROOM], region[:, -_ROOM:] = 0, 0, 0, 0
    return region
