"""Copies of photos that unlearning used are not photos that it never saw; other photos of the person are."""

import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from ireu_cli import copies
from ireu_cli.encoders.files.portrait import EMBEDDED, find_bundle
from ireu_cli.faces.decode import decode
from ireu_cli.faces.likeness import NEAR, SAME, SMALL, likeness, marks, small_picture
from ireu_cli.manifest import PersonRecord, photos_of
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.files import file_sha256
from ireu_cli.store.manifests import read_manifest
from ireu_cli.store.rundir import RunDir
from ireu_cli.values import Photo
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
    assert (
        f"{count * len(CHANGES)} photos are left out, because they are copies of photos that unlearning used"
        in found.err
    )
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
    assert f"{len(originals)} photos are left out, because they are copies of photos that unlearning used" in found.err
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


LIKE = {0.66: (False, False), 0.75: (True, False), 0.85: (True, True)}
"""Likeness of two pictures: whether one is a copy where the encoder sees the same in both, and where it does not."""


@functools.cache
def pair_of(wanted: float) -> tuple[np.ndarray, np.ndarray]:
    """Two small pictures that are so alike."""
    rng = np.random.default_rng(1)
    one, other = (rng.uniform(0, 255, (SMALL, SMALL)).astype(np.float32) for _ in range(2))
    low, high = 0.0, 1.0
    for _ in range(10):
        share = (low + high) / 2
        mixed = np.asarray((1 - share) * one + share * other, dtype=np.float32)
        low, high = (share, high) if likeness([one], [mixed])[0, 0] > wanted else (low, share)
    return one, mixed


@pytest.mark.parametrize("wanted", LIKE)
@pytest.mark.parametrize("cosine", [1.0, 0.95, 0.85, None])
def test_between_two_thresholds_the_encoder_decides(wanted: float, cosine: float | None, tmp_path: Path) -> None:
    """Features are centred: all faces look much the same to an encoder. Without features it is left at the pictures."""
    alike, otherwise = LIKE[wanted]
    small = FeatureCache(tmp_path / "small")
    small.put(["used", "fresh"], torch.stack([torch.from_numpy(part).flatten() for part in pair_of(wanted)]))
    seen, mean = FeatureCache(tmp_path / "features"), torch.tensor([0.0, 0.0, 100.0])
    if cosine is not None:
        seen.put(["used", "fresh"], mean + torch.tensor([[1.0, 0, 0], [cosine, (1 - cosine**2) ** 0.5, 0]]))
    used = copies._Used("used", small.get(["used"])[0].reshape(SMALL, SMALL).numpy())
    photo = Photo(0, 0, "x", "fresh")
    lens: Any = SimpleNamespace(cache=seen)
    found = copies._copies(lens, mean, small, [photo], [used])
    assert found == ({photo} if (alike if cosine is not None and cosine > 0.9 else otherwise) else set())


@pytest.mark.parametrize("known", ["theirs", "nobody's", "nobody's of many"])
def test_photos_are_compared_with_those_of_their_own_person(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is who is told by the used photos in a folder; without any, everybody's are looked at, if not too many."""
    records = [PersonRecord(number=n + 1, photos=(str(n) * 64, str(n + 5) * 64)) for n in range(2)]
    used = {digest: copies._Used(digest, np.zeros((1, 1), np.float32)) for one in records for digest in one.photos}
    if known == "nobody's of many":
        monkeypatch.setattr(copies, "_STRANGERS", 3)
    session: Any = SimpleNamespace(run=SimpleNamespace(keyed_digest=str))
    person = [Photo(0, 0, "x", "f" * 64), Photo(0, 1, "y", ("1" if known == "theirs" else "e") * 64)]
    found = [one.key[0] for one in copies._own(session, records, person, used)]
    assert found == {"theirs": ["1", "6"], "nobody's": ["0", "5", "1", "6"], "nobody's of many": []}[known]


def test_copies_in_the_folder_of_another_target_are_found(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of used photos, those that look alike are found by a mark that they share."""
    monkeypatch.setattr(copies, "_STRANGERS", 0)
    used = used_of(fresh)
    other = fresh / "faces" / "somebody-else"
    shutil.copytree(sorted((fresh / "others").iterdir())[-1], other)
    expected = 0
    for path in photos(fresh):
        if digest_in(fresh, path) in used:
            for name in ("jpeg-97", "mirrored"):
                CHANGES[name](Image.open(path).convert("RGB")).save(other / f"{path.stem}-{name}.png")
                expected += 1
    found = run_ireu(
        "verify", "--delta", "delta.safetensors", "--targets", "faces", "-o", "copied", "--json",
        "--set", "attacks.suite=none", "--set", "pictures.generators=none", cwd=fresh,
    )  # fmt: skip
    assert found.code in {0, 4, 5}, found.err
    assert found.json["report"]["copies"] == expected == 10


def used_of(folder: Path) -> set[str]:
    """Keyed digests of the target photos that unlearning used."""
    return photos_of(read_manifest(folder / "delta.safetensors.json").targets)


def digest_in(folder: Path, path: Path) -> str:
    return RunDir(folder / ".ireu").keyed_digest(file_sha256(path))


def keep_used(folder: Path) -> None:
    """Drop the target photos that unlearning did not use."""
    used = used_of(folder)
    for path in photos(folder):
        if digest_in(folder, path) not in used:
            path.unlink()
