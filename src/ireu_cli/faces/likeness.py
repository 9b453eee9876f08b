"""Detect copies of a photo: saved again, resized, cropped a little, mirrored, lighter or darker.

A photo is kept as a small grey picture. Crops of it are compared after the local contrast is evened out, so that
neither light nor the shape of all faces counts for much. docs/verify.md gives the figures behind the limits.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from ireu_cli.values import RgbImage

LIKENESS_VERSION = 1
"""Raise it when the same photo gives another small picture, so that old and new ones are not mixed."""
SMALL = 96
"""The side of the small picture, in pixels."""
SAME = 0.8
"""The likeness from which two photos are copies of each other."""
NEAR, FEATURES_NEAR = 0.7, 0.9
"""From this likeness on, they are copies if their features, centred on other people, have this cosine too."""

_SIDE, _BLUR, _NOISE, _BINS = 32, 2.0, 25.0, 8
_SCALES = (0.96, 0.92, 0.88, 0.84, 0.8)
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

Grey = npt.NDArray[np.float32]


def small_picture(image: RgbImage) -> Grey:
    """A photo as a small grey picture: float32 (SMALL, SMALL), 0 to 255."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    shrinks = min(grey.shape) >= SMALL
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (SMALL, SMALL), interpolation=how), dtype=np.float32)


def whole(small: Grey) -> Grey:
    """A vector of the picture's look, with length 1, float32 (1024,); all zeros for a picture of a single colour."""
    return np.asarray(_looks(cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)[None])[0])


def cut_outs(small: Grey) -> Grey:
    """The same for its crops to 80 to 100 % of the sides, upright and mirrored: float32 (n, 1024), each of length 1."""
    parts = np.stack([cv2.resize(part, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for part in _parts(small)])
    return _looks(np.concatenate([parts, parts[:, :, ::-1]]))


def likeness(first: list[Grey], second: list[Grey]) -> Grey:
    """The likeness of small pictures, either as a crop of the other: float32 (len(first), len(second)), at most 1."""
    found = np.full((len(first), len(second)), -1, dtype=np.float32)
    if not first or not second:
        return found
    wholes = [np.stack([whole(small) for small in group]) for group in (first, second)]
    for row, small in enumerate(first):
        found[row] = (cut_outs(small) @ wholes[1].T).max(0)
    for column, small in enumerate(second):
        found[:, column] = np.maximum(found[:, column], (cut_outs(small) @ wholes[0].T).max(0))
    return found


def marks(small: Grey, *, mirrored: bool = False) -> set[tuple[int, int]]:
    """Four parts of a perceptual hash of 64 bits; a copy that was only saved again shares a part with its source.

    They are keys of a table, so that a photo is only compared with a few others. `mirrored`: hash the mirror image.
    """
    look = whole(small).reshape(_SIDE, _SIDE)
    low = cv2.dct(np.ascontiguousarray(look[:, ::-1] if mirrored else look))[:_BINS, :_BINS].flatten()
    bits = np.packbits(low > np.median(low)).tobytes()
    return {(part, int.from_bytes(bits[2 * part : 2 * part + 2], "big")) for part in range(4)}


def _parts(small: Grey) -> Iterator[Grey]:
    yield small
    for scale in _SCALES:
        side = round(scale * SMALL)
        for down in _STEPS:
            for right in _STEPS:
                top, left = round(down * (SMALL - side)), round(right * (SMALL - side))
                yield small[top : top + side, left : left + side]


def _looks(pictures: Grey) -> Grey:
    """Even out the local contrast of (n, side, side), and give each length 1."""
    details = pictures - _blurred(pictures)
    even = details / np.sqrt(_blurred(details * details) + _NOISE)
    flat = even.reshape(len(even), -1)
    flat = flat - flat.mean(1, keepdims=True)
    sizes = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.where(sizes > 1e-3, flat / np.maximum(sizes, 1e-3), 0), dtype=np.float32)


def _blurred(pictures: Grey) -> Grey:
    return np.stack([cv2.GaussianBlur(picture, (0, 0), _BLUR) for picture in pictures])
