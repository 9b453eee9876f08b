"""From the bytes of a photo to RGB pixels, with one defined outcome for everything that cameras and people produce."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ireu_cli.values import RgbImage

SMALLEST_SIDE = 32
"""Below this many pixels a face cannot be told from another."""


class BadPhotoError(Exception):
    """Why one photo cannot be used, in words that fit after "photo 2 of person 1"."""


def decode(data: bytes, max_megapixels: float) -> RgbImage:
    """Decode a photo as a viewer shows it.

    EXIF orientation is applied; grey becomes three equal channels; transparency is laid on white; 16-bit values are
    scaled to 8 bits, not clipped; CMYK and palettes are converted; of an animation, the first frame counts.

    Args:
        data: the file's bytes.
        max_megapixels: larger pictures are refused before anything is decoded.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        BadPhotoError: empty, not a picture, ends early, too large, too small, or floating-point values.
    """
    if not data:
        raise BadPhotoError("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_size(image.size, max_megapixels)
                return np.asarray(_to_rgb(_upright(image)), dtype=np.uint8)
    except BadPhotoError:
        raise
    except Image.DecompressionBombError:
        raise BadPhotoError(f"is larger than {max_megapixels:g} megapixels") from None
    except UnidentifiedImageError:
        raise BadPhotoError("is not a picture that can be read") from None
    except Exception as error:  # noqa: BLE001 - decoders raise every kind of error on damaged data
        ends_early = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise BadPhotoError(
            "ends early (truncated file)" if ends_early else "is damaged and cannot be decoded"
        ) from None


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise BadPhotoError(f"is larger than {max_megapixels:g} megapixels ({width} x {height})")
    if min(size) < SMALLEST_SIDE:
        raise BadPhotoError(f"is smaller than {SMALLEST_SIDE} pixels ({width} x {height})")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - broken EXIF says nothing about the pixels
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadPhotoError("holds floating-point values, which have no defined range")
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
