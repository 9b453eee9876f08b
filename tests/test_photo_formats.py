"""What is decoded, and what is not: formats, sizes, what lies around the pixels, damage of every kind."""

import ast
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from ireu_cli.faces.decode import MOST_SCANS, BadPhotoError, decode, look
from ireu_cli.faces.formats import ENDINGS, FORMATS, readable, what_else
from tests.test_photos import encoded, picture

ROOT = Path(__file__).parent.parent
PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n0 0 64 64 rectfill showpage\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(kind: bytes, body: bytes) -> bytes:
    plain = encoded(picture())
    return plain[:33] + chunk(kind, body) + plain[33:]


def progressive(scans: int) -> bytes:
    """A JPEG of so many passes: its last one again and again."""
    data = encoded(picture((640, 480)).convert("L"), "JPEG", progressive=True)
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    return data[:-2] + data[starts[-1] : -2] * (scans - len(starts)) + b"\xff\xd9"


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: str(entry.pillow))
def test_every_format_is_read_under_any_name(entry: Any) -> None:
    if entry.pillow not in readable():
        pytest.skip(f"this Pillow has no {entry.name}")
    found = decode(encoded(picture((64, 48)), entry.pillow), 64)
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - np.asarray(picture((64, 48)))).mean() < 30


def test_no_other_format_of_pillow_is_opened() -> None:
    """What Pillow opens by other formats runs programs (PostScript), or is nobody's photo."""
    Image.init()
    others = [name for name in Image.SAVE if name not in {entry.pillow for entry in FORMATS} | {"MPO"}]
    tried = 0
    for name in others:
        try:
            data = encoded(picture(), name)
        except Exception:  # noqa: BLE001 - some formats hold other modes, or are written with the help of programs
            continue
        tried += 1
        with pytest.raises(BadPhotoError):
            decode(data, 64)
    assert tried > 5


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", ran)
    for data in (PROGRAM, b"\xc5\xd0\xd3\xc6" + bytes(26) + PROGRAM):
        with pytest.raises(BadPhotoError, match="PostScript file, which is a program that ireu does not run"):
            decode(data, 64)
        with pytest.raises(BadPhotoError, match="PostScript"):
            look(io.BytesIO(data), 64)


def test_readers_of_other_packages_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def foreign(*_arguments: object) -> None:
        asked.append(1)
        raise SyntaxError

    foreign.__module__ = "somebody.plugin"
    monkeypatch.setitem(Image.OPEN, "BMP", (foreign, lambda _prefix: True))
    assert "BMP" not in readable()
    with pytest.raises(BadPhotoError):
        decode(encoded(picture(), "TIFF")[:-5000] + bytes(9), 64)
    with pytest.raises(BadPhotoError):
        decode(b"BM" + bytes(100), 64)
    assert not asked


@pytest.mark.parametrize("part", ["src", "benchmarks", "recipes", "scripts"])
def test_pictures_are_opened_by_stated_formats_everywhere(part: str) -> None:
    for path in sorted((ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"Image.open", "PIL.Image.open"}:
                assert "formats" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"imread", "imdecode", "imreadmulti"}, f"{path}:{node.lineno}"


def test_the_page_lists_the_formats() -> None:
    page = (ROOT / "docs" / "photos.md").read_text()
    for entry in FORMATS:
        listed = ", ".join(f"`{ending}`" for ending in entry.endings)
        assert f"| {entry.name} | {listed} |" in page
    table = page.split("| format | endings |")[1].split("\n\n")[0]
    assert len(table.strip().splitlines()) == len(FORMATS) + 1
    assert sum(table.count(f"`{ending}`") for ending in ENDINGS) == len(ENDINGS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + bytes(4000),
            "HEIC picture, which is not read: co",
        ),
        (struct.pack(">I", 24) + b"ftypmif1" + b"\0\0\0\0mif1heic" + bytes(4000), "HEIF picture, which is not read"),
        (struct.pack(">I", 24) + b"ftypqt  " + bytes(400), "is a film, which is not read$"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git-lfs pointer.*git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0.jpg\n", "git-annex pointer"),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "is a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        (b"%PDF-1.7\n", "PDF file"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (bytes(5000), "only zero bytes"),
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0", "is damaged"),
        (b"nothing known", "is not a picture that ireu can read"),
    ],
)
def test_what_is_no_photo_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(BadPhotoError, match=words):
        decode(data, 64)
    with pytest.raises(BadPhotoError, match=words):
        look(io.BytesIO(data), 64)


def test_a_damaged_picture_of_a_format_that_is_read_is_not_said_to_be_of_another() -> None:
    whole = encoded(picture(), "AVIF") if "AVIF" in readable() else encoded(picture())
    assert "is damaged" in what_else(whole[:40])


def exif(entries: list[tuple[int, int, int, bytes]], order: str) -> bytes:
    """An EXIF block of raw entries (tag, type, count, value of four bytes), as a careless writer leaves it."""
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3].ljust(4, b"\0")[:4] for entry in sorted(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", 0)


def jpeg_with(block: bytes) -> bytes:
    data, segment = encoded(picture((64, 48)), "JPEG", quality=95), b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def tiff_with(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    pixels = np.asarray(picture((64, 48))).tobytes()
    shorts = {256: 64, 257: 48, 258: 8, 259: 1, 262: 2, 277: 3, 278: 48}
    own = [(tag, 3, 1, struct.pack("<HH", value, 0)) for tag, value in shorts.items() if tag != 258]
    own += [(279, 4, 1, struct.pack("<I", len(pixels)))]
    kept = [entry for entry in entries if entry[0] not in {*shorts, 273, 279}]
    count = len(own) + len(kept) + 2
    depths = 8 + 2 + 12 * count + 4
    own += [(258, 3, 3, struct.pack("<I", depths)), (273, 4, 1, struct.pack("<I", depths + 6))]
    return exif(own + kept, "<") + struct.pack("<HHH", 8, 8, 8) + pixels


_BYTES = st.binary(min_size=4, max_size=4)
_ENTRY = st.tuples(
    st.one_of(st.sampled_from([0x10F, 0x11A, 0x128, 0x2BC, 0x8769, 0x8825, 0xA005, 0x14A]), st.integers(0x103, 0xFFFF)),
    st.integers(0, 19),
    st.one_of(st.integers(0, 3), st.sampled_from([100, 0xFFFFFFFF])),
    _BYTES,
).filter(lambda entry: entry[0] != 0x112)


@settings(max_examples=150, deadline=None)
@given(others=st.lists(_ENTRY, max_size=4, unique_by=lambda entry: entry[0]), turn=st.integers(2, 8), big=st.booleans())
def test_photos_are_turned_whatever_else_their_exif_says(
    others: list[tuple[int, int, int, bytes]], turn: int, big: bool
) -> None:
    order = ">" if big else "<"
    block = exif([(0x112, 3, 1, struct.pack(order + "HH", turn, 0)), *others], order)
    wanted = np.asarray(ImageOps.exif_transpose(_turned(turn)))
    assert np.array_equal(decode(png_with(b"eXIf", block), 64), wanted)
    assert decode(jpeg_with(block), 64).shape == wanted.shape


@pytest.mark.parametrize("tag", [0x2BC, 0x8769, 0x8825, 0xA005, 0x14A])
@pytest.mark.parametrize("kind", [1, 3, 4, 5, 9, 13])
def test_a_tiff_is_turned_whatever_its_other_directories_say(tag: int, kind: int) -> None:
    for value in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfb\xff\xff\xff"):
        found = decode(tiff_with([(0x112, 3, 1, b"\6\0\0\0"), (tag, kind, 1, value)]), 64)
        assert np.array_equal(found, np.asarray(picture((64, 48)).transpose(Image.Transpose.ROTATE_270)))


def _turned(number: int) -> Image.Image:
    image = picture((64, 48))
    note = Image.Exif()
    note[0x112] = number
    image.info["exif"] = note.tobytes()
    return image


@pytest.mark.parametrize(
    "data",
    [
        png_with(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(8_000_000))),
        png_with(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 8_000_000)),
        png_with(b"iCCP", b"press\0\0" + zlib.compress(bytes(2_000_000))),
        encoded(picture(), "JPEG") + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 400,
        encoded(picture(), "JPEG") + b"\x00\x02" + b"\xff\xda\x00\x02" * 10 * MOST_SCANS,
        encoded(picture(), "JPEG", icc_profile=bytes(range(256)) * 4000),
    ],
    ids=["text", "xmp", "profile", "film", "noise behind the end", "profile of a JPEG"],
)
def test_what_lies_around_the_pixels_does_not_matter(data: bytes) -> None:
    assert decode(data, 64).shape == (48, 64, 3)


def test_texts_that_unpack_to_gigabytes_are_refused() -> None:
    bomb = zlib.compress(bytes(200_000_000))
    with pytest.raises(BadPhotoError, match="more than 64 MiB of texts"):
        decode(png_with(b"zTXt", b"x\0\0" + bomb), 64)


def tiled(side: int) -> bytes:
    """A TIFF of 64 x 64 pixels in one tile of `side` x `side`, which unpacks to zeros."""
    body = zlib.compress(bytes(side * side * 3))
    entries = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 2), (277, 3, 3), (322, 4, side)]
    entries += [(323, 4, side), (324, 4, 0), (325, 4, len(body))]
    around = 8 + 2 + 12 * len(entries) + 4
    packed = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, value in entries:
        count, told = (3, around) if tag == 258 else (1, around + 8 if tag == 324 else value)
        packed += struct.pack("<HHII", tag, kind, count, told)
    return packed + struct.pack("<I4H", 0, 8, 8, 8, 0) + body


def test_a_small_tiff_of_a_huge_tile_is_refused_before_it_is_unpacked() -> None:
    assert decode(tiled(64), 64).shape == (64, 64, 3)
    for read in (lambda data: decode(data, 1), lambda data: look(io.BytesIO(data), 1)):
        with pytest.raises(BadPhotoError, match=r"tiles of 1024 x 1024"):
            read(tiled(1024))


def test_jpegs_of_thousands_of_passes_are_refused() -> None:
    assert decode(progressive(20), 64).shape == (480, 640, 3)
    with pytest.raises(BadPhotoError, match="more than 100 passes"):
        decode(progressive(MOST_SCANS + 1), 64)


def test_pillows_own_limit_never_stays_below_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode(encoded(picture((640, 480))), 1).shape == (480, 640, 3)
    assert Image.MAX_IMAGE_PIXELS == 1_000_000
    with pytest.raises(BadPhotoError, match=r"larger than 0\.2 megapixels, the limit of data\.max_megapixels \(640 x"):
        decode(encoded(picture((640, 480))), 0.2)
    # Others in the process, who open larger pictures, keep their limit.
    assert Image.MAX_IMAGE_PIXELS == 1_000_000


@pytest.mark.parametrize("mode", ["grey", "colours", "alpha"])
def test_12_bits_in_16_are_refused_and_not_read_as_black(mode: str) -> None:
    grey = np.linspace(0, 4095, 40 * 40).reshape(40, 40).astype(np.uint16)
    with pytest.raises(BadPhotoError, match="nearly black, because it uses only 12 of its 16 bits"):
        decode(_png_16(grey, mode), 64)
    assert decode(_png_16(grey * 16, mode), 64).max() > 240


def _png_16(values: np.ndarray[Any, Any], mode: str) -> bytes:
    channels = {"grey": [values], "colours": [values] * 3, "alpha": [values, np.full_like(values, 65535)]}[mode]
    rows = np.stack(channels, -1).astype(">u2")
    colour = {"grey": 0, "colours": 2, "alpha": 4}[mode]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, colour, 0, 0, 0))
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_lack_of_memory_is_not_damage(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(_self: object) -> None:
        raise error

    def full(*_arguments: object) -> None:
        raise MemoryError

    data = encoded(picture(), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(MemoryError):
        decode(data, 64)


def test_absurd_requests_for_memory_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: object) -> None:
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    with pytest.raises(BadPhotoError, match="damaged"):
        decode(encoded(picture(), "BMP"), 64)


def test_decoding_leaves_the_warnings_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that set and take back what is the process's leave it changed for good."""
    before, during = list(warnings.filters), []
    load: Callable[..., Any] = ImageFile.ImageFile.load

    def spied(self: Any) -> Any:
        during.append(list(warnings.filters))
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", spied)
    threads = [threading.Thread(target=decode, args=(encoded(picture(), "BMP"), 64)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert during
    assert all(found == before for found in [*during, list(warnings.filters)])


def test_pillows_remarks_are_not_shown() -> None:
    code = """
import warnings
from ireu_cli.faces.decode import decode
from tests.test_photos import encoded, picture
decode(encoded(picture(), "JPEG", exif=b"Exif\\x00\\x00II*\\x00\\xff\\xff\\xff\\xff"), 64)
warnings.warn("of somebody else")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.count("Warning") == 1
    assert "of somebody else" in done.stderr


def seeds() -> list[bytes]:
    image, note = picture((48, 40)), Image.Exif()
    note[0x112] = 6
    more = [image.rotate(90), image.rotate(180)]
    found = [encoded(image, entry.pillow) for entry in FORMATS if entry.pillow in readable()]
    for kind in ("PNG", "GIF", "WEBP", "MPO"):
        found.append(encoded(image, kind, save_all=True, append_images=more))
    found += [encoded(image.convert("L"), "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "packbits")]
    found += [encoded(image.convert("1"), "TIFF", compression="group4"), encoded(image.quantize(16), "PNG")]
    found += [encoded(image, "JPEG", progressive=True, exif=note), encoded(image.convert("CMYK"), "JPEG")]
    return found


SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_ends_in_pixels_or_in_words(data: st.DataObject) -> None:
    photo = bytearray(data.draw(st.sampled_from(SEEDS)))
    how = data.draw(st.sampled_from(["cut", "change", "head", "insert", "splice"]))
    place = data.draw(st.integers(0, len(photo) - 1))
    if how == "cut":
        del photo[place : place + data.draw(st.integers(1, len(photo)))]
    elif how == "insert":
        photo[place:place] = data.draw(st.binary(min_size=1, max_size=64))
    elif how == "splice":
        photo[place:] = data.draw(st.sampled_from(SEEDS))[place:]
    else:
        most = min(len(photo), 200) if how == "head" else len(photo)
        for _ in range(data.draw(st.integers(1, 8))):
            photo[data.draw(st.integers(0, most - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(photo), 4)
    except BadPhotoError:
        return
    assert found.ndim == 3
    assert found.dtype == np.uint8
    assert found.shape[0] * found.shape[1] <= 4e6
