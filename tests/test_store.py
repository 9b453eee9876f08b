"""Files are old or new, never half; artifacts are plain tensors; the run folder is private."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ireu_cli.errors import ArtifactError
from ireu_cli.store.artifacts import read_delta, read_mask, write_delta, write_mask
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.files import (
    check_record,
    file_record,
    files_below,
    flush,
    write_bytes,
    write_folder,
)
from ireu_cli.store.rundir import RunDir
from ireu_cli.values import FeatureMask, WeightDelta


def test_write_bytes_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_folder_keeps_the_old_folder_when_filling_fails(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, lambda folder: write_bytes(folder / "a", b"old"))

    def fail(folder: Path) -> None:
        write_bytes(folder / "a", b"new")
        raise ArtifactError("x", "y")

    with pytest.raises(ArtifactError):
        write_folder(path, fail)
    assert (path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_folder(path, lambda folder: write_bytes(folder / "b", b"new"))
    assert [file.name for file in path.iterdir()] == ["b"]


def test_flushing_ends_when_nobody_wants_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    flush(files_below(tmp_path), lambda: len(flushed) == 2)
    assert len(flushed) == 2
    flush(files_below(tmp_path))
    assert len(flushed) == 5


def test_check_record_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    record = file_record(path, tmp_path)
    check_record(record, tmp_path)
    path.write_bytes(b"1235")
    with pytest.raises(ArtifactError, match="sha256"):
        check_record(record, tmp_path)
    path.write_bytes(b"123")
    with pytest.raises(ArtifactError, match="3 bytes found, 4 bytes recorded"):
        check_record(record, tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        check_record(record, tmp_path)


def test_mask_round_trip_is_byte_stable(tmp_path: Path) -> None:
    mask = FeatureMask(torch.tensor([True, False, True]), torch.tensor([0.5, 0.1, 0.4]))
    for name in ("a.pt", "other-name.pt"):
        write_mask(tmp_path / name, mask)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other-name.pt").read_bytes()
    found = read_mask(tmp_path / "a.pt")
    torch.testing.assert_close(found.score, mask.score, rtol=0, atol=0)
    assert found.mask.tolist() == [True, False, True]


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/ireu-was-unpickled",)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"mask": _Evil(), "score": torch.zeros(2)}, tmp_path / "evil.pt")
    with pytest.raises(ArtifactError, match="plain tensors"):
        read_mask(tmp_path / "evil.pt")
    assert not Path("/tmp/ireu-was-unpickled").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"mask": torch.ones(3)},
        {"mask": torch.ones(3), "score": torch.ones(3)},
        {"mask": torch.zeros(3, dtype=torch.bool), "score": torch.ones(3)},
        {"mask": torch.ones(3, dtype=torch.bool), "score": torch.ones(4)},
        {"mask": torch.ones(3, dtype=torch.bool), "score": torch.full((3,), float("nan"))},
        [1, 2],
    ],
)
def test_masks_of_another_form_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mask.pt")
    with pytest.raises(ArtifactError):
        read_mask(tmp_path / "mask.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_delta_refuses_what_is_not_finite(value: str, dtype: torch.dtype, tmp_path: Path) -> None:
    change = torch.ones(3, 40).to(dtype)
    change[1, 17] = float(value)
    # Not by `write_delta`, which writes single precision.
    save_file({"a": torch.ones(1), "w": change}, tmp_path / "d")
    with pytest.raises(ArtifactError, match="not finite numbers in w"):
        read_delta(tmp_path / "d")
    write_delta(tmp_path / "d", WeightDelta({"w": torch.ones(1), "empty": torch.ones(0, 2)}))
    assert read_delta(tmp_path / "d").tensors["w"].tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int32])
def test_delta_refuses_what_does_not_add_up(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"w": torch.ones(3).to(dtype)}, tmp_path / "d")
    with pytest.raises(ArtifactError, match="cannot be added to weights"):
        read_delta(tmp_path / "d")


def test_run_folder_is_private_and_its_digests_are_keyed(tmp_path: Path) -> None:
    first, again, other = RunDir(tmp_path / "a"), RunDir(tmp_path / "a"), RunDir(tmp_path / "b")
    assert first.keyed_digest("x") == again.keyed_digest("x") != other.keyed_digest("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "key").stat().st_mode) == 0o600
    assert (tmp_path / "a" / ".gitignore").read_text() == "*\n"


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with (
        run.lock(tmp_path / "out"),
        pytest.raises(ArtifactError, match="Another ireu process"),
        run.lock(tmp_path / "out"),
    ):
        pass
    with run.lock(tmp_path / "out"):
        pass


def test_checkpoint_round_trip_and_damage(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.read_checkpoint("id") is None
    run.write_checkpoint("id", {"a": torch.arange(3.0)}, {"step": 7})
    found = run.read_checkpoint("id")
    assert found is not None
    assert found[0]["a"].tolist() == [0, 1, 2]
    assert found[1] == {"step": 7}
    (run.work("id") / "checkpoint.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtifactError, match="damaged"):
        run.read_checkpoint("id")


def test_feature_cache_gives_back_what_it_got(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    again = FeatureCache(tmp_path)
    assert again.missing(["b", "a", "c", "c"]) == ["c"]
    assert again.get(["b", "a", "b"]).tolist() == [[3, 4], [1, 2], [3, 4]]


def test_damaged_cache_files_are_misses(tmp_path: Path) -> None:
    FeatureCache(tmp_path).put(["a"], torch.ones(1, 64))
    file = next(tmp_path.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert FeatureCache(tmp_path).missing(["a"]) == ["a"]
    (tmp_path / "half.safetensors").write_bytes(b"\x00\x01")
    assert FeatureCache(tmp_path).missing(["a"]) == ["a"]
