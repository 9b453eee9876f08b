"""The picture formats that ireu reads, and words for files of other kinds.

Pillow knows some forty formats. For PostScript it starts Ghostscript, which runs any program in the file. So only the
formats listed here are read.
"""

import importlib
import re
from dataclasses import dataclass

from PIL import Image, features


@dataclass(frozen=True)
class Format:
    """A format: its common name, Pillow's `plugin`, the endings of its files, and Pillow's `part` that it needs."""

    name: str
    pillow: str
    plugin: str
    endings: tuple[str, ...]
    part: str | None = None


FORMATS = (
    Format("JPEG, MPO included", "JPEG", "JpegImagePlugin", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "jpg"),
    Format("PNG, APNG included", "PNG", "PngImagePlugin", (".png", ".apng"), "zlib"),
    Format("WebP", "WEBP", "WebPImagePlugin", (".webp",), "webp"),
    Format("BMP", "BMP", "BmpImagePlugin", (".bmp",)),
    Format("TIFF", "TIFF", "TiffImagePlugin", (".tif", ".tiff")),
    Format("GIF", "GIF", "GifImagePlugin", (".gif",)),
    Format("AVIF", "AVIF", "AvifImagePlugin", (".avif",), "avif"),
    Format("JPEG 2000", "JPEG2000", "Jpeg2KImagePlugin", (".jp2", ".j2k", ".jpf", ".jpx"), "jpg_2000"),
)
"""The formats that are read. The content decides the format of a file; the ending only says that it is a photo."""

ENDINGS = frozenset(ending for entry in FORMATS for ending in entry.endings)

UNREAD_ENDINGS = frozenset(
    {".heic", ".heif", ".hif", ".livp", ".jxl", ".psd", ".tga"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw"}
)
"""Endings of pictures that are not read. Notes name them, because a photo among others is easily missed."""

_CONVERT = "convert it to JPEG"
_AVIF, _FILM = "an AVIF picture", "a film"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"), "a HEIC picture"),
    **dict.fromkeys((b"mif1", b"msf1"), "a HEIF picture"),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    b"crx ": "a camera's raw file",
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"3gp4", b"3gp5"), _FILM),
}
"""Kinds by the four letters after `ftyp` at the start of a file."""
_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "is a git-lfs pointer, not the picture: fetch it with git lfs pull"),
    (b"/annex/objects/", "is a git-annex pointer, not the picture: fetch it with git annex get"),
    (b"%!PS", "is a PostScript file, which is a program that ireu does not run"),
    (b"\xc5\xd0\xd3\xc6", "is a PostScript file, which is a program that ireu does not run"),
    (b"%PDF", f"is a PDF file, not a picture: {_CONVERT}"),
    (b"8BPS", f"is a Photoshop file, which is not read: {_CONVERT}"),
    (b"\xff\x0a", f"is a JPEG XL picture, which is not read: {_CONVERT}"),
    (b"\x00\x00\x00\x0cJXL ", f"is a JPEG XL picture, which is not read: {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", f"is a camera's raw file, which is not read: {_CONVERT}"),
    (b"\x00\x00\x01\x00", f"is an icon, which is not read: {_CONVERT}"),
    (b"\x00\x05\x16\x07", "is a Mac's extra file about a picture (AppleDouble), not the picture"),
    (b"PK\x03\x04", "is a zip archive, not a picture: unpack it"),
    (b"\x1f\x8b", "is a gzip archive, not a picture: unpack it"),
)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype\s+)?(html|svg)\b", re.I | re.S)
HEAD = 1024
"""The number of first bytes that `what_else` looks at."""


def _plugins() -> None:
    """Load Pillow's own readers of these formats; those that it was built without are left out."""
    for entry in FORMATS:
        try:
            importlib.import_module(f"PIL.{entry.plugin}")
        except ImportError:
            continue


def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that this installation reads, each by Pillow's own reader."""
    return tuple(
        entry.pillow
        for entry in FORMATS
        if entry.pillow in Image.OPEN
        and str(Image.OPEN[entry.pillow][0].__module__).startswith("PIL.")
        and (entry.part is None or features.check(entry.part))
    )


def what_else(head: bytes) -> str:
    """What a file is that is not a picture in one of the formats, in words that fit after "photo 2 of person 1".

    Args:
        head: its first bytes.
    """
    for start, words in _STARTS:
        if head.startswith(start):
            return words
    begun = any(accepts and accepts(head[:16]) is True for _, accepts in map(Image.OPEN.__getitem__, readable()))
    if head[4:8] == b"ftyp" and (kind := _BRANDS.get(head[8:12])) and not (begun and kind == _AVIF):
        return f"is {kind}, which is not read{'' if kind == _FILM else f': {_CONVERT}'}"
    if markup := _MARKUP.match(head[:HEAD]):
        drawing = markup[2].lower() == b"svg"
        return f"is an SVG drawing, which is not read: {_CONVERT}" if drawing else "is a web page, not a picture"
    if not head:
        return "is empty (0 bytes)"
    if not head.strip(b"\x00"):
        return "holds only zero bytes: restore it from a copy"
    return "is damaged and cannot be decoded" if begun else "is not a picture that ireu can read"


_plugins()
