"""Copies of photos that unlearning used are not photos that it never saw; other photos of the person are."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ireu_cli.faces.decode import decode
from ireu_cli.faces.likeness import NEAR, SAME, likeness, marks, small_picture
from ireu_cli.models.portrait import EMBEDDED, find_bundle
from tests.conftest import run_ireu

Change = Callable[[Image.Image], Image.Image]


def saved(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=quality)
        return Image.open(buffer)

    return change


def cut(share: float, right: float, down: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        (width, height), rest = image.size, 1 - share
        left, top = rest * right * width, rest * down * height
        return image.crop((round(left), round(top), round(left + share * width), round(top + share * height)))

    return change


CHANGES: dict[str, Change] = {
    "jpeg-97": saved(97),
    "jpeg-95": saved(95),
    "jpeg-92": saved(92),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice": lambda image: image.resize((image.width * 2, image.height * 2)),
    "cut": cut(0.93, 0.3, 0.8),
    "mirrored": ImageOps.mirror,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "grey": lambda image: image.convert("L"),
}


def photos(samples: Path) -> list[Path]:
    return sorted((samples / "faces").rglob("*.png"))


def as_image(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_a_copy_is_like_its_source(samples: Path, name: str) -> None:
    sources = [Image.open(path).convert("RGB") for path in photos(samples)[:4]]
    small = [small_picture(as_image(image)) for image in sources]
    found = likeness(small, [small_picture(as_image(CHANGES[name](image))) for image in sources])
    assert found.diagonal().min() >= SAME


def test_likeness_is_the_same_both_ways() -> None:
    rng = np.random.default_rng(0)
    small = [small_picture(rng.integers(0, 256, (80, 80, 3), np.uint8)) for _ in range(4)]
    assert np.allclose(likeness(small[:2], small[2:]), likeness(small[2:], small[:2]).T)
    assert likeness(small, []).shape == (4, 0)


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_pictures_of_one_colour_are_like_nothing(colour: int) -> None:
    flat = small_picture(np.full((64, 48, 3), colour, np.uint8))
    assert np.isfinite(likeness([flat], [flat])).all()
    assert float(likeness([flat], [flat]).max()) < NEAR


def test_a_copy_shares_a_mark_with_its_source_and_strangers_hardly_do(data: Path) -> None:
    everybody = [next(person.glob("*.jpg")) for person in sorted((data / "faces" / "eval").iterdir())[:30]]
    found = []
    for path in everybody:
        image = Image.open(path).convert("RGB")
        found.append(marks(small_picture(as_image(image))))
        assert found[-1] & marks(small_picture(as_image(CHANGES["jpeg-95"](image))))
        assert found[-1] & marks(small_picture(as_image(CHANGES["mirrored"](image))), mirrored=True)
    shared = [bool(one & two) for n, one in enumerate(found) for two in found[:n]]
    assert sum(shared) <= 0.02 * len(shared)


def test_different_photos_of_real_people_are_hardly_ever_copies(data: Path) -> None:
    """docs/verify.md has the figures of many more; benchmarks/photo_pairs.py prints them."""
    alike = total = 0
    for person in sorted((data / "faces" / "eval").iterdir())[:20]:
        small = [small_picture(decode(path.read_bytes(), 64)) for path in sorted(person.glob("*.jpg"))[:8]]
        found = np.tril(likeness(small, small), -1)
        alike, total = alike + int((found >= SAME).sum()), total + len(small) * (len(small) - 1) // 2
    assert total > 400
    assert alike <= 1


def test_copies_of_used_photos_do_not_make_a_verdict(fresh: Path) -> None:
    """The used photos saved again, and nothing else: the person's real other photos are gone."""
    used = json.loads((fresh / "delta.safetensors.json").read_text())["targets"]
    count = sum(len(person["photos"]) for person in used)
    keep_used(fresh)
    originals = photos(fresh)
    assert len(originals) == count
    for path in originals:
        for name, change in CHANGES.items():
            change(Image.open(path).convert("RGB")).convert("RGB").save(path.with_name(f"{path.stem}-{name}.png"))
    found = run_ireu(
        "verify", "--delta", "delta.safetensors", "--targets", "faces", "-o", "copied", "--json", cwd=fresh
    )
    assert found.code == 5, found.err
    report = found.json["report"]
    assert report["copies"] == count * len(CHANGES)
    assert f"{count * len(CHANGES)} photos are copies of photos that unlearning used" in found.err
    assert [control["name"] for control in report["controls"] if not control["met"]] == ["unseen_photos"]
    assert report["record"]["photos_supplied"] == count * (1 + len(CHANGES))
    assert "left out as copies" in (fresh / "copied" / "report.html").read_text()


@pytest.mark.parametrize("kept", [1, 0])
def test_copies_are_told_where_the_used_photos_were_deleted(fresh: Path, kept: int) -> None:
    """What they look like is kept in the run folder."""
    keep_used(fresh)
    originals = photos(fresh)
    for path in originals:
        saved(95)(Image.open(path).convert("RGB")).save(path.with_name(f"{path.stem}-again.jpg"))
    for path in originals[kept:]:
        path.unlink()
    verify = ("verify", "--delta", "delta.safetensors", "--targets", "faces", "-o", "copied")
    found = run_ireu(*verify, cwd=fresh)
    assert found.code == (5 if kept else 3), found.err
    assert f"{len(originals)} photos are copies of photos that unlearning used" in found.err
    if not kept:
        assert "Every photo of a target is a copy" in found.err


def test_copies_of_photos_that_nothing_is_known_of_make_no_verdict(fresh: Path) -> None:
    """Two used photos stay; of the others there are copies, and what the run folder kept of them is gone."""
    keep_used(fresh)
    originals = photos(fresh)
    assert len(originals) > 2
    for path in originals[2:]:
        for quality in (95, 88):
            saved(quality)(Image.open(path).convert("RGB")).save(path.with_name(f"{path.stem}-{quality}.jpg"))
        path.unlink()
    for folder in (fresh / ".ireu" / "features").glob("small-*"):
        shutil.rmtree(folder)
    verify = ("verify", "--delta", "delta.safetensors", "--targets", "faces", "-o", "copied", "--json")
    found = run_ireu(*verify, "--set", "verify.require_unseen=false", cwd=fresh)
    assert found.code == 5, found.err
    unmet = {control["name"]: control["found"] for control in found.json["report"]["controls"] if not control["met"]}
    assert unmet["used_photos_known"] == pytest.approx(2 / len(originals))


def test_different_photos_of_the_sample_people_are_no_copies() -> None:
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    assert bundle.people is not None
    for person in sorted(p for p in (bundle.folder / bundle.people).iterdir() if p.is_dir())[:6]:
        small = [small_picture(decode(path.read_bytes(), 64)) for path in sorted(person.glob("*.jpg"))]
        assert float(np.tril(likeness(small, small), -1).max()) < NEAR


def keep_used(folder: Path) -> None:
    """Drop the target photos that unlearning did not use."""
    from ireu_cli.manifest import photos_of
    from ireu_cli.store.artifacts import read_manifest
    from ireu_cli.store.files import file_sha256
    from ireu_cli.store.rundir import RunDir

    run = RunDir(folder / ".ireu")
    used = photos_of(read_manifest(folder / "delta.safetensors.json").targets)
    for path in photos(folder):
        if run.keyed_digest(file_sha256(path)) not in used:
            path.unlink()
