"""Decode the bytes of a photo to RGB pixels, with a defined result for everything that cameras and people produce."""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from ireu_cli.faces.formats import HEAD, readable, what_else
from ireu_cli.values import RgbImage

SMALLEST_SIDE = 32
"""The smallest side in pixels at which faces can be told apart."""
MOST_SCANS = 100
"""The most passes of a progressive JPEG over its pixels.

Cameras and programs make up to about twenty. A hostile file of one megabyte can hold thousands, and each takes as long
as a whole picture."""
_MOST_TEXT = 64 * 2**20
"""The most unpacked bytes of compressed texts and profiles in a PNG; drawing programs keep whole projects there."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_TILE = (322, 323)
"""The TIFF tags for the width and length of a tile."""
_WIDTHS = {1: 1, 3: 2, 4: 4}
"""The number of bytes of a whole number in EXIF, by the number of its type."""
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In a JPEG's data, 0xFF begins a marker unless 0x00, another 0xFF or the number of a restart follows."""
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9

# These settings are for the whole process: several threads read photos, so they cannot be changed for one photo.
# Pillow's warnings are about data around the pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, _MOST_TEXT)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, _MOST_TEXT)


class BadPhotoError(Exception):
    """Why one photo cannot be used, in words that fit after "photo 2 of person 1"."""


def decode(data: bytes, max_megapixels: float) -> RgbImage:
    """Decode a photo as a viewer shows it.

    EXIF orientation is applied; grey becomes three equal channels; transparent parts become white; 16-bit values are
    scaled to 8 bits, not clipped; CMYK and palettes are converted; for an animation, the first frame counts.

    Args:
        data: the file's bytes.
        max_megapixels: larger pictures are refused before anything is decoded.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        BadPhotoError: it is empty, not a picture in one of the formats, cut off, too large or too small, has
            floating-point values, or uses only 12 of its 16 bits.
        MemoryError: the machine has no more memory, which says nothing about the photo.
    """
    _refuse_scans(data)
    with _opened(io.BytesIO(data), max_megapixels) as image:
        wide = image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in image.tile)
        upright = _upright(image)
        # Some formats only tell their true size with the pixels.
        _check_size(upright.size, max_megapixels)
        if wide:
            _refuse_12_bits(upright)
        return np.asarray(_to_rgb(upright), dtype=np.uint8)


def look(file: BinaryIO, max_megapixels: float) -> None:
    """Refuse a photo for reasons that its first bytes show; nothing is decoded.

    Raises:
        BadPhotoError: it is empty, not a picture in one of the formats, too large or too small, or has floating-point
            values.
        MemoryError: the machine has no more memory.
    """
    with _opened(file, max_megapixels):
        pass


@contextlib.contextmanager
def _opened(file: BinaryIO, max_megapixels: float) -> Iterator[ImageFile.ImageFile]:
    """Open a picture, and turn every later error about it into words."""
    limit = math.ceil(min(max_megapixels * 1e6, 2**62))
    # Pillow's own limit is for the whole process, so it is only ever raised: the user decides how large a photo may be.
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    size = (0, 0)
    try:
        with Image.open(file, formats=readable()) as image:
            size = image.size
            _check_size(size, max_megapixels)
            _check_tiles(image, max_megapixels)
            if image.mode == "F":
                raise BadPhotoError("holds floating-point values, which have no defined range")
            yield image
    except (BadPhotoError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadPhotoError(_larger(max_megapixels)) from None
    except UnidentifiedImageError:
        file.seek(0)
        raise BadPhotoError(what_else(file.read(HEAD))) from None
    except Exception as error:  # noqa: BLE001 - decoders raise every kind of error on damaged data
        raise _damaged(error, size) from None


def _damaged(error: Exception, size: tuple[int, int]) -> BadPhotoError:
    """What a decoder's error says about the photo.

    Raises:
        MemoryError: it says that memory is short, and it is.
    """
    text = str(error).lower()
    if "out of memory" in text:
        # Damaged data can ask for absurd amounts of memory. The machine is to blame only if even the picture does not
        # fit.
        np.empty(8 * size[0] * size[1], np.uint8)
    if "max_text" in text or "text chunks" in text:
        return BadPhotoError(f"has more than {_MOST_TEXT // 2**20} MiB of texts or profiles besides its pixels")
    if "truncated" in text or isinstance(error, EOFError):
        return BadPhotoError("ends early (truncated file)")
    return BadPhotoError("is damaged and cannot be decoded")


def _larger(max_megapixels: float) -> str:
    return f"is larger than {max_megapixels:g} megapixels, the limit of data.max_megapixels"


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise BadPhotoError(f"{_larger(max_megapixels)} ({width} x {height})")
    if min(size) < SMALLEST_SIDE:
        raise BadPhotoError(f"is smaller than {SMALLEST_SIDE} pixels ({width} x {height})")


def _check_tiles(image: Image.Image, max_megapixels: float) -> None:
    """Refuse a TIFF whose tiles are larger than a picture may be: a whole tile is unpacked, however little is shown."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, length = (image.tag_v2.get(tag) for tag in _TILE)
        if isinstance(width, int) and isinstance(length, int) and width * length > max(max_megapixels, 1) * 1e6:
            raise BadPhotoError(f"{_larger(max_megapixels)} (tiles of {width} x {length})")


def _refuse_scans(data: bytes) -> None:
    """Refuse a JPEG with absurdly many passes; data after its end, such as a film, does not count."""
    if not data.startswith(b"\xff\xd8"):
        return
    scans, place = 0, 2
    while found := _MARKER.search(data, place):
        kind, place = data[found.end() - 1], found.end()
        if kind == _END:
            return
        scans += kind == _SCAN
        if scans > MOST_SCANS:
            raise BadPhotoError(f"is a JPEG with more than {MOST_SCANS} passes, which would take minutes to decode")
        if kind != _START:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF says. Only that one number is read, so the rest may be broken."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        orientation = _orientation(image)
        # Pillow itself turns a TIFF when it loads it, and reads all other entries while doing so.
        image.info.pop("xmp", None)
        exif = image.getexif()
        for tag in list(exif):
            del exif[tag]
        image.load()
    else:
        image.load()
        orientation = _orientation(image)
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF number that says how to turn the picture; 1 means not at all."""
    found = _orientation_in(image.info.get("exif"))
    try:
        told = found or image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - what lies around the pixels says nothing about them
        return 1
    return told if isinstance(told, int) else 1


def _orientation_in(exif: object) -> int | None:
    """Find one entry of the first directory, skipping broken ones; None if it does not exist."""
    if not isinstance(exif, bytes):
        return None
    block = exif.removeprefix(b"Exif\x00\x00")
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"
    start = int.from_bytes(block[4:8], order)
    count = int.from_bytes(block[start : start + 2], order)
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        if int.from_bytes(block[place : place + 2], order) == _ORIENTATION:
            width = _WIDTHS.get(int.from_bytes(block[place + 2 : place + 4], order), 0)
            return int.from_bytes(block[place + 8 : place + 8 + width], order) or None
    return None


def _refuse_12_bits(image: Image.Image) -> None:
    """Refuse a picture that only uses the lowest 12 of 16 bits, as from a raw converter: it would be nearly black."""
    if image.mode[:1] not in {"I", "L", "R"}:
        return
    found = image.getextrema()
    extrema = found if isinstance(found[0], tuple) else (found,)
    brightest = max(high for band, (_, high) in zip(image.getbands(), extrema, strict=True) if band != "A")
    if brightest <= (0xFFF if image.mode.startswith("I") else 0xF):
        raise BadPhotoError(
            "is nearly black, because it uses only 12 of its 16 bits; scale its values to the whole range"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise BadPhotoError("holds 32-bit values, which have no defined range")
    return Image.fromarray((values / 257).round().astype(np.uint8))
