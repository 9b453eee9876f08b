"""Photos as cameras and people produce them: each kind has one outcome, in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError, decode
from ireu_cli.faces.folder import choose_photos, scan_people, split_people
from ireu_cli.support.runtime import generator


def picture(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_plain_photo() -> None:
    image = picture()
    found = decode(encoded(image), 64)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(image, "PNG", exif=exif), 64)
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns[orientation]
    assert np.array_equal(found, np.asarray(image if turn is None else image.transpose(turn)))


def test_broken_exif_does_not_matter() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(data, 64).shape == (48, 64, 3)


def test_grey_becomes_three_channels() -> None:
    found = decode(encoded(picture().convert("L")), 64)
    assert np.array_equal(found[..., 0], found[..., 2])
    assert found.shape == (48, 64, 3)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (40, 40), (10, 20, 30, 0))
    assert (decode(encoded(clear), 64) == 255).all()
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert (decode(encoded(palette, transparency=0), 64) == 255).all()


def test_16_bit_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    found = decode(encoded(Image.fromarray(values)), 64)
    assert np.array_equal(found[..., 0], (values / 257).round().astype(np.uint8))


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (40, 40), (200, 30, 30)).convert("CMYK")
    found = decode(encoded(red, "JPEG", quality=95), 64).astype(int)
    assert abs(found.reshape(-1, 3).mean(0) - [200, 30, 30]).max() < 12


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture"),
        (encoded(picture((640, 480)), "JPEG")[:-2000], "ends early"),
        (encoded(picture((640, 480)))[:900], "ends early|damaged"),
        (encoded(picture((31, 64))), "smaller than 32"),
        (encoded(picture((2000, 1000))), "larger than 1 megapixels"),
        (encoded(Image.fromarray(np.zeros((40, 40), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((40, 40), 70000, np.int32)), "TIFF"), "32-bit"),
    ],
)
def test_unusable_photos_say_why(data: bytes, words: str) -> None:
    with pytest.raises(BadPhotoError, match=words):
        decode(data, 1)


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(BadPhotoError, match="larger than 64 megapixels"):
        decode(bomb, 64)


def people_folder(tmp_path: Path, photos: int = 2) -> Path:
    for person in range(3):
        for photo in range(photos):
            path = tmp_path / "faces" / f"p{person}" / f"{photo}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(seed=10 * person + photo)))
    return tmp_path / "faces"


def test_scan_by_person_and_flat(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    people = scan_people(folder, "--targets", "one person")
    assert [len(person) for person in people.photos] == [2, 2, 2]
    assert people.photos[1][1].label == "photo 2 of person 2"
    one = scan_people(folder / "p0", "--targets", "one person")
    assert [len(person) for person in one.photos] == [2]
    everybody = scan_people(folder / "p0", "--retain", "everybody")
    assert [len(person) for person in everybody.photos] == [1, 1]
    assert not everybody.labelled


def test_duplicates_and_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    (folder / "p2" / "copy.png").write_bytes((folder / "p0" / "0.png").read_bytes())
    (folder / "p2" / "notes.txt").write_text("x")
    (folder / "p2" / ".hidden.png").write_text("x")
    people = scan_people(folder, "--targets", "one person")
    assert len(people.flat) == 6
    assert people.notes == ("1 files with other endings are ignored", "1 second copies of the same photo are ignored")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist"):
        scan_people(tmp_path / "none", "--targets", "one person")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match="no photos"):
        scan_people(tmp_path / "empty", "--targets", "one person")
    folder = people_folder(tmp_path)
    (folder / "p3").mkdir()
    with pytest.raises(PhotoError, match=r"Person 4 .* has no photos"):
        scan_people(folder, "--targets", "one person")
    (folder / "p3").rmdir()
    (folder / "loose.png").write_bytes(encoded(picture(seed=99)))
    with pytest.raises(PhotoError, match="beside its 3 subfolders"):
        scan_people(folder, "--targets", "one person")


def test_names_and_paths_stay_out_of_messages(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    secret = folder / "Jane Doe"
    secret.mkdir()
    with pytest.raises(PhotoError) as error:
        scan_people(folder, "--targets", "one person")
    assert "Jane" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_choice_and_split_are_seeded_and_partition(tmp_path: Path) -> None:
    people = scan_people(people_folder(tmp_path, photos=5), "--retain", "everybody")
    chosen = choose_photos(people, 2, generator(1, "x"))
    assert [len(person) for person in chosen.photos] == [2, 2, 2]
    assert chosen == choose_photos(people, 2, generator(1, "x"))
    used, held = split_people(people, 0.5, generator(1, "y"))
    assert len(used.photos) == 2
    assert len(held.photos) == 1
    assert sorted(photo.sha256 for photo in [*used.flat, *held.flat]) == sorted(photo.sha256 for photo in people.flat)
    assert {p.person for p in used.flat}.isdisjoint({p.person for p in held.flat})
    assert torch.equal(torch.rand(3, generator=generator(1, "y")), torch.rand(3, generator=generator(1, "y")))
