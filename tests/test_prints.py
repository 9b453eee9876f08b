"""Prints of files that were read before are found again, and only of those that nobody touched."""

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ireu_cli.encoders.files import checkpoint as checkpoints
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.fingerprint import Print, prints_by
from ireu_cli.encoders.files.tensor_file import TensorFile, open_file
from ireu_cli.exporting import prints
from ireu_cli.support import stamps
from tests.tiny_layouts import write_layout


class Reader:
    """Reads the prints of the files of a source, and notes what it was asked for."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.asked: list[list[str]] = []

    def read(self) -> dict[str, Print]:
        checkpoint = open_checkpoint(self.source)

        def read(names: list[str]) -> dict[str, Print]:
            self.asked.append(names)
            return prints_by(names, checkpoint.__getitem__)

        found = prints.kept_prints(self.folder, checkpoint, checkpoint, read)
        assert found == prints_by(checkpoint, checkpoint.__getitem__)
        return found


@pytest.fixture(params=["folder", "folder in shards", "photomaker v1"])
def reader(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Reader:
    # Files of a moment ago count as settled.
    monkeypatch.setattr(stamps, "_SETTLED", 0)
    source = write_layout(request.param, tiny_folder, tmp_path / "place")
    return Reader(source, tmp_path / "prints")


def weights_of(source: Path) -> list[Path]:
    return [part.path for part in open_checkpoint(source).parts]


def test_files_are_read_once(reader: Reader) -> None:
    assert reader.read() == reader.read()
    assert len(reader.asked) == 1
    assert reader.asked[0] == sorted(open_checkpoint(reader.source))


def test_files_that_changed_a_moment_ago_are_read_again(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within the same tick of the file system would show no other time."""
    monkeypatch.setattr(stamps, "_SETTLED", 3_600_000_000_000)
    reader.read()
    reader.read()
    assert len(reader.asked) == 2


def test_a_file_changed_under_its_old_time_is_read_again(reader: Reader) -> None:
    before = reader.read()
    path = weights_of(reader.source)[-1]
    times = path.stat()
    data = bytearray(path.read_bytes())
    if path.suffix == ".safetensors":
        data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    after = reader.read()
    assert len(reader.asked) == 2
    assert (after == before) == (path.suffix != ".safetensors")


def test_another_file_in_the_same_place_is_read(reader: Reader) -> None:
    reader.read()
    path = weights_of(reader.source)[0]
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    reader.read()
    assert len(reader.asked) == 2


def test_what_is_kept_and_damaged_is_read_again(reader: Reader) -> None:
    reader.read()
    (kept,) = reader.folder.iterdir()
    state = load_file(kept)
    state["digests"][0, 0] ^= 1
    save_file(state, kept)
    reader.read()
    assert len(reader.asked) == 2


def test_what_changes_while_it_is_read_is_not_kept(reader: Reader) -> None:
    checkpoint = open_checkpoint(reader.source)

    def touched(names: list[str]) -> dict[str, Print]:
        os.utime(weights_of(reader.source)[0])
        return prints_by(names, checkpoint.__getitem__)

    prints.kept_prints(reader.folder, checkpoint, checkpoint, touched)
    assert not reader.folder.exists()
    reader.read()
    assert len(reader.asked) == 1


def test_a_source_that_is_switched_while_it_is_read_is_not_kept(reader: Reader, tmp_path: Path) -> None:
    """A link to the current version leads elsewhere: to files that have lain there for long."""
    other = tmp_path / "other"
    shutil.copytree(reader.source.parent, other)
    path = other / weights_of(reader.source)[-1].relative_to(reader.source.parent)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    link = tmp_path / "current"
    link.symlink_to(reader.source.parent)
    through = link / reader.source.relative_to(reader.source.parent)
    checkpoint = open_checkpoint(through)
    link.unlink()
    link.symlink_to(other)
    prints.kept_prints(reader.folder, checkpoint, checkpoint, lambda names: prints_by(names, checkpoint.__getitem__))
    assert not reader.folder.exists()


def test_where_nothing_can_be_kept_files_are_read_each_time(reader: Reader) -> None:
    reader.folder.write_bytes(b"in the way")
    reader.read()
    reader.read()
    assert len(reader.asked) == 2


def test_a_file_that_is_replaced_while_others_are_opened_has_changed(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = weights_of(reader.source)

    def late(path: Path) -> TensorFile:
        found = open_file(path)
        other = path.with_name("other")
        other.write_bytes(paths[0].read_bytes())
        other.replace(paths[0])
        return found

    assert not open_checkpoint(reader.source).has_changed()
    monkeypatch.setattr(checkpoints, "open_file", late)
    assert open_checkpoint(reader.source).has_changed()
