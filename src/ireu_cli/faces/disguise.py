"""Changes to a photo of a removed person that may get it past the edit: move, recolour, degrade or cover it.

Front-ends do this without intent: they prepare the same photo for the same encoder in different ways. So do people who
pass a photo on: a chain is several changes, one after the other, each of them small.

Every disguise is a pure function: one photo gives the same picture each time, in the photo's own shape. Lengths follow
the picture or the face. Noise counts as a kind of blur: both take detail away.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from ireu_cli.errors import ConfigError
from ireu_cli.faces.align import Points, aligned_like_insightface
from ireu_cli.faces.covering import face_size, with_eye_bar, with_glasses, with_mask, with_nose_square
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.values import RgbImage

Family = Literal["front-end", "geometry", "colour", "compression", "blur", "occlusion", "mix", "chain"]
Apply = Callable[[RgbImage, Points, RgbImage, RgbImage], RgbImage]
"""A function from (photo, its landmarks, another photo of the same person, a photo of somebody else) to a picture.

The result has the photo's shape: uint8, C-contiguous, its own memory. Landmarks are finite; photos may differ in size,
but not in the position of the face."""
DISGUISE_VERSION = 1
"""Raise it when the same disguise gives other pixels, so that kept features and pictures are not mixed."""
_BORDER = cv2.BORDER_REFLECT_101
_ENCODED = 224
"""The side, in pixels, of most encoders' pictures."""
_GRAIN = _ENCODED
"""The most pixels of the shorter side for noise; finer noise would vanish in the encoder's scaling.
"""


@dataclass(frozen=True)
class Disguise:
    """One way of changing a photo: `name` is stable, and the report shows `meaning`."""

    name: str
    family: Family
    meaning: str
    apply: Apply


def disguise(name: str) -> Disguise:
    """Look up a disguise by its name.

    Raises:
        ConfigError: no disguise has that name.
    """
    known = {each.name: each for each in DISGUISES}
    if name not in known:
        raise ConfigError(f"There is no disguise with the name {name!r}", f"Choose from {', '.join(known)}")
    return known[name]


def _picture(values: Any) -> RgbImage:
    """Values 0 to 255 of any type as a picture of its own: uint8, C-contiguous."""
    return np.array(np.clip(np.rint(values), 0, 255), dtype=np.uint8, order="C")


def _resized(image: RgbImage, width: int, height: int) -> RgbImage:
    smaller = width < image.shape[1] or height < image.shape[0]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def _crop(photo: RgbImage, points: Points, *, scale: float) -> RgbImage:
    """The window is moved inside the picture where the face sits near its border."""
    height, width = photo.shape[:2]
    rows, columns = round(scale * height), round(scale * width)
    x, y = points.mean(0)
    left = int(np.clip(round(x - columns / 2), 0, width - columns))
    top = int(np.clip(round(y - rows / 2), 0, height - rows))
    return _resized(photo[top : top + rows, left : left + columns], width, height)


def _zoom_out(photo: RgbImage, _points: Points) -> RgbImage:
    height, width = photo.shape[:2]
    small = _resized(photo, round(0.8 * width), round(0.8 * height))
    missing_y, missing_x = height - small.shape[0], width - small.shape[1]
    top, left = missing_y // 2, missing_x // 2
    return np.asarray(cv2.copyMakeBorder(small, top, missing_y - top, left, missing_x - left, _BORDER))


def _shift(photo: RgbImage, _points: Points) -> RgbImage:
    down, right = round(0.1 * photo.shape[0]), round(0.1 * photo.shape[1])
    padded = np.pad(photo, ((down, 0), (right, 0), (0, 0)), mode="reflect")
    return np.ascontiguousarray(padded[: photo.shape[0], : photo.shape[1]])


def _rotate(photo: RgbImage, points: Points, *, degrees: float) -> RgbImage:
    matrix = cv2.getRotationMatrix2D(points.mean(0).tolist(), degrees, 1.0)
    return np.asarray(cv2.warpAffine(photo, matrix, photo.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=_BORDER))


def _grey(photo: RgbImage, _points: Points) -> RgbImage:
    return np.ascontiguousarray(np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2))


def _contrast(photo: RgbImage, _points: Points, *, factor: float) -> RgbImage:
    return np.array(ImageEnhance.Contrast(Image.fromarray(photo)).enhance(factor))


def _gamma(photo: RgbImage, _points: Points, *, gamma: float) -> RgbImage:
    return np.ascontiguousarray(_picture(255 * (np.arange(256) / 255) ** gamma)[photo])


def _hue(photo: RgbImage, _points: Points, *, degrees: float) -> RgbImage:
    hsv = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV_FULL)
    # On the FULL scale a turn is 256 steps, so that the overflow of uint8 is the turn itself.
    hsv[:, :, 0] += np.uint8(round(degrees / 360 * 256) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _gain(photo: RgbImage, _points: Points, *, red: float, green: float, blue: float) -> RgbImage:
    return _picture(photo * np.array([red, green, blue]))


def _jpeg(photo: RgbImage, _points: Points, *, quality: int) -> RgbImage:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as image:
        return np.array(image.convert("RGB"))


def _blur(photo: RgbImage, points: Points, *, width: float) -> RgbImage:
    return np.asarray(cv2.GaussianBlur(photo, (0, 0), width * face_size(points), borderType=_BORDER))


def _down_up(photo: RgbImage, _points: Points, *, factor: int) -> RgbImage:
    height, width = photo.shape[:2]
    return _resized(_resized(photo, max(1, round(width / factor)), max(1, round(height / factor))), width, height)


def _noise(photo: RgbImage, _points: Points, *, deviation: float) -> RgbImage:
    """The noise depends on the pixels: equal photos get equal noise, and different photos get unrelated noise."""
    height, width = photo.shape[:2]
    scale = min(1.0, _GRAIN / min(height, width))
    random = np.random.default_rng(zlib.crc32(photo.tobytes()))
    grain = random.standard_normal((round(scale * height), round(scale * width), 3))
    return _picture(photo + deviation * cv2.resize(grain, (width, height), interpolation=cv2.INTER_NEAREST))


def _in_the_middle(photo: RgbImage, square: RgbImage) -> RgbImage:
    """The photo with its middle replaced, which is what an encoder's own scaling and cropping leaves of it."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = np.array(photo, order="C")
    picture[top : top + side, left : left + side] = square
    return picture


def _squash(photo: RgbImage, _points: Points) -> RgbImage:
    side = min(photo.shape[:2])
    return _in_the_middle(photo, _resized(photo, side, side))


def _aligned(photo: RgbImage, points: Points) -> RgbImage:
    try:
        return _in_the_middle(photo, aligned_like_insightface(photo, points, min(photo.shape[:2])))
    except BadPhotoError:
        # If no face is found, such front-ends refuse the photo.
        return np.array(photo, order="C")


def _unsmoothed(photo: RgbImage, _points: Points) -> RgbImage:
    """Values are taken between a few pixels and all others are ignored, so fine detail turns into coarse detail."""
    height, width = photo.shape[:2]
    scale = _ENCODED / min(height, width)
    if scale >= 1:
        return np.array(photo, order="C")
    small = cv2.resize(photo, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_LINEAR)
    # Any smoothing would average repeated pixels away again.
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def _flip(photo: RgbImage, _points: Points) -> RgbImage:
    return np.array(photo[:, ::-1], order="C")


def _mixed(
    photo: RgbImage,
    _points: Points,
    same: RgbImage,
    other: RgbImage,
    *,
    with_whom: Literal["same", "other"],
    share: float,
) -> RgbImage:
    """The face lies at the same place in all photos, so that fitting their sizes aligns the faces."""
    added = _resized(same if with_whom == "same" else other, photo.shape[1], photo.shape[0])
    return _picture((1 - share) * photo.astype(np.float64) + share * added)


def _alone(
    photo: RgbImage,
    points: Points,
    _same: RgbImage,
    _other: RgbImage,
    *,
    change: Callable[[RgbImage, Points], RgbImage],
) -> RgbImage:
    """A change that needs the photo and its landmarks only."""
    return change(photo, points)


def _one(name: str, family: Family, meaning: str, change: Callable[[RgbImage, Points], RgbImage]) -> Disguise:
    # Not a function in a function: a disguise can be sent to another process.
    return Disguise(name, family, meaning, partial(_alone, change=change))


def _mix(name: str, meaning: str, with_whom: Literal["same", "other"], share: float) -> Disguise:
    return Disguise(name, "mix", meaning, partial(_mixed, with_whom=with_whom, share=share))


_SINGLE: tuple[Disguise, ...] = (
    _one("squash", "front-end", "The whole photo is squashed to a square, as sd-webui does.", _squash),
    _one("aligned", "front-end", "The face is aligned before the encoder, as FaceID-Plus does.", _aligned),
    _one("unsmoothed", "front-end", "The photo is shrunk without smoothing, as sd-webui does.", _unsmoothed),
    _one("flip", "geometry", "The photo is mirrored left to right.", _flip),
    _one("crop-0.9", "geometry", "The photo is cut to 90% of its sides around the face.", partial(_crop, scale=0.9)),
    _one("crop-0.8", "geometry", "The photo is cut to 80% of its sides around the face.", partial(_crop, scale=0.8)),
    _one("crop-0.7", "geometry", "The photo is cut to 70% of its sides around the face.", partial(_crop, scale=0.7)),
    _one("zoom-out-0.8", "geometry", "The photo is shrunk to 80% of its sides, mirrored around.", _zoom_out),
    _one("shift", "geometry", "The photo is moved right and down by a tenth of its sides.", _shift),
    _one("rotate-left-10", "geometry", "The photo is turned 10 degrees anticlockwise.", partial(_rotate, degrees=10)),
    _one("rotate-right-10", "geometry", "The photo is turned 10 degrees clockwise.", partial(_rotate, degrees=-10)),
    _one("rotate-left-20", "geometry", "The photo is turned 20 degrees anticlockwise.", partial(_rotate, degrees=20)),
    _one("rotate-right-20", "geometry", "The photo is turned 20 degrees clockwise.", partial(_rotate, degrees=-20)),
    _one("grey", "colour", "The photo has no colour.", _grey),
    _one("brightness-0.5", "colour", "The photo is half as bright.", partial(_gain, red=0.5, green=0.5, blue=0.5)),
    _one("brightness-1.6", "colour", "The photo is 1.6 times as bright.", partial(_gain, red=1.6, green=1.6, blue=1.6)),
    _one("contrast-0.5", "colour", "The photo has half its contrast.", partial(_contrast, factor=0.5)),
    _one("contrast-1.6", "colour", "The photo has 1.6 times its contrast.", partial(_contrast, factor=1.6)),
    _one("gamma-0.5", "colour", "The photo's shadows are lifted by a gamma of 0.5.", partial(_gamma, gamma=0.5)),
    _one("gamma-2", "colour", "The photo's shadows are deepened by a gamma of 2.", partial(_gamma, gamma=2.0)),
    _one("hue-30", "colour", "Every hue of the photo is turned by 30 degrees.", partial(_hue, degrees=30)),
    _one("cast-warm", "colour", "The photo has an orange cast.", partial(_gain, red=1.2, green=1, blue=0.75)),
    _one("cast-cold", "colour", "The photo has a blue cast.", partial(_gain, red=0.75, green=1, blue=1.2)),
    _one("jpeg-90", "compression", "The photo is saved as JPEG of quality 90.", partial(_jpeg, quality=90)),
    _one("jpeg-50", "compression", "The photo is saved as JPEG of quality 50.", partial(_jpeg, quality=50)),
    _one("jpeg-30", "compression", "The photo is saved as JPEG of quality 30.", partial(_jpeg, quality=30)),
    _one("jpeg-10", "compression", "The photo is saved as JPEG of quality 10.", partial(_jpeg, quality=10)),
    _one("blur-0.03", "blur", "The photo is blurred by 3% of the face's size.", partial(_blur, width=0.03)),
    _one("blur-0.08", "blur", "The photo is blurred by 8% of the face's size.", partial(_blur, width=0.08)),
    _one("down-up-2", "blur", "The photo is shrunk to half its sides and enlarged again.", partial(_down_up, factor=2)),
    _one("down-up-3", "blur", "The photo is shrunk to a third and enlarged again.", partial(_down_up, factor=3)),
    _one("down-up-4", "blur", "The photo is shrunk to a quarter and enlarged again.", partial(_down_up, factor=4)),
    _one("noise-10", "blur", "Noise of 10 grey levels lies over the photo.", partial(_noise, deviation=10)),
    _one("noise-25", "blur", "Noise of 25 grey levels lies over the photo.", partial(_noise, deviation=25)),
    _one("glasses", "occlusion", "Dark glasses cover the eyes.", with_glasses),
    _one("mask", "occlusion", "A mask covers mouth and nose.", with_mask),
    _one("eye-bar", "occlusion", "A black bar covers the eyes.", with_eye_bar),
    _one("nose-square", "occlusion", "A grey square covers the nose.", with_nose_square),
    _mix("mix-same", "The photo is averaged with another one of the same person.", "same", 0.5),
    _mix("mix-other-0.25", "The photo is mixed with a quarter of somebody else's.", "other", 0.25),
    _mix("mix-other-0.5", "The photo is averaged with somebody else's.", "other", 0.5),
)


def _in_turn(
    photo: RgbImage, points: Points, same: RgbImage, other: RgbImage, *, parts: tuple[Disguise, ...]
) -> RgbImage:
    """Several disguises, one after the other. Those that need to know where the face lies come first."""
    for part in parts:
        photo = part.apply(photo, points, same, other)
    return photo


def _chain(name: str, meaning: str, *names: str) -> Disguise:
    single = {each.name: each for each in _SINGLE}
    parts = tuple(single[part] for part in names)
    return Disguise(name, "chain", meaning, partial(_in_turn, parts=parts))


DISGUISES: tuple[Disguise, ...] = (
    *_SINGLE,
    _chain(
        "screenshot",
        "A screenshot: the photo is cut to 90%, shrunk to half its sides, and saved as JPEG of quality 50.",
        *("crop-0.9", "down-up-2", "jpeg-50"),
    ),
    _chain(
        "passed-on",
        "The photo was passed on twice: JPEG of quality 50, shrunk to half its sides, JPEG of quality 30.",
        *("jpeg-50", "down-up-2", "jpeg-30"),
    ),
    _chain(
        "filtered",
        "An app's filter: the photo is turned 10 degrees clockwise, blurred by 3%, with 1.6 times its contrast.",
        *("rotate-right-10", "blur-0.03", "contrast-1.6"),
    ),
    _chain(
        "mirror-selfie",
        "A selfie in a mirror: the photo is cut to 90%, mirrored, with an orange cast, saved as JPEG of quality 50.",
        *("crop-0.9", "flip", "cast-warm", "jpeg-50"),
    ),
    _chain(
        "photocopy",
        "A copy on paper: the photo is turned 10 degrees anticlockwise, without colour, with more contrast and noise.",
        *("rotate-left-10", "grey", "contrast-1.6", "noise-10"),
    ),
)
"""Every disguise, in the order of the report. Names are unique."""
