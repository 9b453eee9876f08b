"""More than two hundred malformed inputs: each ends in one sentence with a remedy, code 3 (or 2), and no artifact."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import plant_manifest, run_ireu

CONFIGS = [
    "seed = -1",
    "seed = 'x'",
    "seed = 1.5",
    "seed = 99999999999",
    "seed = true_",
    "seed = [1]",
    "sede = 1",
    "[data]\ntarget = 'x'",
    "[encoder]\ntap = 'middle'",
    "[encoder]\ntap = 3",
    "[encoder]\ndtype = 'int8'",
    "[encoder]\nsource = 3",
    "[encoder]\nsource = ''",
    "[encoder]\nsource = 'nowhere'",
    "[encoder]\nsource = 'faces'",
    "[encoder]\nlayers = 3",
    "[run]\nbatch_size = 0",
    "[run]\nbatch_size = 'x'",
    "[run]\ndevice = 'abacus'",
    "[run]\ncheckpoint_seconds = -1",
    "[run]\ncheckpoint_seconds = nan",
    "[data]\nmax_photos = 0",
    "[data]\nretain_holdout = 1.0",
    "[data]\nretain_holdout = -0.1",
    "[data]\nbad_photos = 'ignore'",
    "[data]\nfaces = 'maybe'",
    "[data]\nfaces = 'detect'",
    "[data]\nlandmarks = [1, 2]",
    "[data]\nlandmarks = 'a,b'",
    "[data]\nmax_megapixels = 0",
    "[data]\nmax_megapixels = 0.001",
    "[data]\nmax_megapixels = inf",
    "[data]\ncrop_size = 1",
    "[data]\ntargets = 'nowhere'",
    "[data]\nretain = 'nowhere'",
    "[data]\ntargets = 3",
    "[locate]\ntop_fraction = 0",
    "[locate]\ntop_fraction = 1.01",
    "[locate]\nmethod = 'magic'",
    "[locate]\npartners = 0",
    "[locate]\nswapper = 'paste'",
    "[locate]\nswapper = 'insightface'",
    "[locate]\nswapper = 'pairs'",
    "[unlearn]\nalpha = 0",
    "[unlearn]\nsteps = 'some'",
    "[verify]\nfalse_match_rate = 0.7",
    "[verify]\nbootstrap = 1",
    "[export]\nformat = 'zip'",
    "[export]\nmin_edit_kept = 0",
    "[[unlearn]]\nalpha = 1",
    "[other]\nx = 1",
    "seed = 1\nseed = 2",
    "not toml at all",
    "\x00",
    "[data]\nretain_holdout = 1",
]


def sentence_of(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("ireu: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def check_refused(found: object, folder: Path, before: set[Path]) -> None:
    code, err = found.code, found.err  # type: ignore[attr-defined]
    assert code in {2, 3}, err
    text = sentence_of(err)
    assert text.endswith(".")
    assert ". " in text.removesuffix("."), f"no remedy: {text}"
    left = {path for path in folder.rglob("*") if ".ireu" not in path.parts}
    assert left == before, left - before


@pytest.fixture(scope="module")
def place(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("malformed") / "demo"
    shutil.copytree(job, folder)
    return folder


def listing(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".ireu" not in path.parts}


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_configs(place: Path, number: int) -> None:
    base = {"encoder": ["source = 'encoder'", "tap = 'pooled'"], "data": ["targets = 'faces'", "retain = 'others'"]}
    text = CONFIGS[number]
    for section, lines in base.items():
        for line in lines:
            key = line.split(" = ")[0]
            if f"{key} = " not in text:
                text = (
                    text.replace(f"[{section}]\n", f"[{section}]\n{line}\n", 1)
                    if f"[{section}]" in text
                    else f"{text}\n[{section}]\n{line}"
                )
    config = place / "bad.toml"
    config.write_text(text)
    before = listing(place)
    check_refused(run_ireu("locate", "--config", "bad.toml", "-o", "new.pt", cwd=place), place, before)


def photos() -> Iterator[bytes]:
    buffer = io.BytesIO()
    Image.effect_noise((90, 90), 80).convert("RGB").save(buffer, "JPEG", quality=90)
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    Image.effect_noise((90, 90), 80).convert("RGB").save(buffer, "PNG")
    png = buffer.getvalue()
    for data in (jpeg, png):
        for share in (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
            yield data[: int(share * len(data))]
    for start in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"II*\x00",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"BM",
        b"GIF89a",
    ):
        yield start
        yield start + b"\x00" * 200
        yield start + bytes(range(256))
    for size in ((1, 1), (31, 400), (9000, 9000)):
        buffer = io.BytesIO()
        Image.new("1", size).save(buffer, "PNG")
        yield buffer.getvalue()


PHOTOS = list(photos())


@pytest.mark.parametrize("number", range(len(PHOTOS)))
def test_photos(place: Path, tmp_path: Path, number: int) -> None:
    shutil.copytree(place / "faces", tmp_path / "faces")
    (tmp_path / "faces" / "person-00" / "a.jpg").write_bytes(PHOTOS[number])
    before = listing(place)
    found = run_ireu("locate", "--targets", tmp_path / "faces", "--max-photos", "20", "-o", "new.pt", cwd=place)
    check_refused(found, place, before)
    assert "of person 1" in found.err


def flipped(path: Path, number: int, count: int) -> bytes:
    """The file with one byte changed; positions are spread over the whole of it."""
    data = bytearray(path.read_bytes())
    position = (number * (len(data) - 1)) // (count - 1)
    data[position] ^= 1 << (number % 8)
    return bytes(data)


CHAIN = {
    "mask.pt": ["unlearn", "--mask", "mask.pt", "-o", "new"],
    "mask.pt.json": ["unlearn", "--mask", "mask.pt", "-o", "new"],
    "delta.safetensors": ["verify", "--delta", "delta.safetensors", "-o", "new"],
    "delta.safetensors.json": ["export", "--allow-failed", "--delta", "delta.safetensors", "-o", "new"],
    "report/manifest.json": ["verify", "--delta", "delta.safetensors"],
    "report/report.json": ["verify", "--delta", "delta.safetensors"],
    "encoder-unlearned/ireu.json": ["export", "--allow-failed", "--delta", "delta.safetensors"],
}
FLIPS = 16


@pytest.mark.parametrize("number", range(FLIPS))
@pytest.mark.parametrize("name", list(CHAIN))
def test_artifacts_with_one_byte_changed(place: Path, name: str, number: int) -> None:
    path = place / name
    whole = path.read_bytes()
    before = listing(place)
    try:
        path.write_bytes(flipped(path, number, FLIPS))
        check_refused(run_ireu(*CHAIN[name], cwd=place), place, before)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["mask.pt", "mask.pt.json", "delta.safetensors", "delta.safetensors.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04", None])
def test_artifacts_that_are_something_else(place: Path, name: str, content: bytes | None) -> None:
    path = place / name
    whole = path.read_bytes()
    try:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        before = listing(place)
        check_refused(run_ireu(*CHAIN[name], cwd=place), place, before)
    finally:
        path.write_bytes(whole)


def test_pickles_are_refused_without_being_run(place: Path, tmp_path: Path) -> None:
    from ireu_cli.store.manifests import manifest_path, read_manifest

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = place / "evil.pt"
    torch.save({"mask": Evil(), "score": Evil()}, path)
    plant_manifest(manifest_path(path), read_manifest(place / "mask.pt.json"), [path])
    before = listing(place)
    check_refused(run_ireu("unlearn", "--mask", "evil.pt", "-o", "new", cwd=place), place, before)
    assert not (tmp_path / "ran").exists()


def test_there_are_two_hundred() -> None:
    assert len(CONFIGS) + len(PHOTOS) + len(CHAIN) * FLIPS + 16 + 1 >= 200
