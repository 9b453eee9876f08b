"""What is at an output stays unless ireu wrote it; it is replaced in one step, in private, by one at a time."""

import errno
import fcntl
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import EncoderRecord, FileRecord, Manifest
from ireu_cli.store import files, locks, outputs, system
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.files import native_name, portable_name, write_bytes, write_folder
from ireu_cli.store.manifests import manifest_path, read_manifest, write_manifest
from ireu_cli.store.outputs import found_at, recover, refuse_place, state_of, write_artifact, write_artifact_folder
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.store.rundir import RunDir
from tests.conftest import run_ireu
from tests.test_cli import digests

DRAFT = Manifest(
    step="locate",
    state="running",
    tool_version="0",
    identity="a" * 64,
    seed=0,
    parameters={},
    encoder=EncoderRecord(fingerprint="f" * 64, architecture="a", tap="pooled", layers=1),
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def own_file(folder: Path, data: bytes = b"old", name: str = "mask.pt") -> Path:
    output = folder / name
    write_artifact(output, data, DRAFT, state_of(manifest_path(output), output))
    return output


def own_folder(folder: Path, name: str = "out", **content: bytes) -> Path:
    output = folder / name

    def fill(inside: Path) -> Manifest:
        for file, data in (content or {"a": b"old"}).items():
            write_bytes(inside / file, data)
        return write_manifest(inside / "ireu.json", DRAFT, sorted(inside.iterdir()))

    write_artifact_folder(output / "ireu.json", output, fill, state_of(output / "ireu.json", output), True)
    return output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


ALLOWED = {"export": ("--allow-failed",), "verify": ()}
"""Flags without which an edit that failed would be refused for that."""


class TestForeign:
    """Nothing but what ireu wrote is replaced, even with --force."""

    MINE = ("config.json", "model.safetensors", "preprocessor_config.json", "report.json", "report.html", "README.md")

    @pytest.mark.parametrize("name", [*MINE, "manifest.json", "ireu.json", "pictures/a.png", "images/index.csv"])
    @pytest.mark.parametrize("command", ["export", "verify"])
    def test_files_with_names_that_ireu_gives(self, job: Path, tmp_path: Path, name: str, command: str) -> None:
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / name).write_bytes(b"{}")
        where = ("--delta", "delta.safetensors", "-o", tmp_path / "mine", "--force")
        found = run_ireu(command, *where, *ALLOWED[command], cwd=job)
        assert (found.code, "ireu did not write" in found.err) == (3, True), found.err
        assert digests(tmp_path) == {f"mine/{name}": b"{}"}

    def test_an_encoder_that_is_not_even_read(self, fresh: Path) -> None:
        shutil.copytree(fresh / "encoder", fresh / "another")
        before = digests(fresh / "another")
        for command in ("export", "verify"):
            where = ("--delta", "delta.safetensors", "-o", "another", "--force")
            found = run_ireu(command, *where, *ALLOWED[command], cwd=fresh)
            assert (found.code, "ireu did not write" in found.err) == (3, True), found.err
        assert digests(fresh / "another") == before

    @pytest.mark.parametrize("force", [(), ("--force",)])
    def test_a_json_of_ones_own_beside_the_artifact(self, fresh: Path, force: tuple[str, ...]) -> None:
        (fresh / "new.pt.json").write_text('{"mine": 1}')
        found = run_ireu("locate", "-o", "new.pt", *force, cwd=fresh)
        assert (found.code, "new.pt.json" in found.err) == (3, True), found.err
        assert (fresh / "new.pt.json").read_text() == '{"mine": 1}'
        assert not (fresh / "new.pt").exists()

    def test_files_of_ones_own_and_the_key(self, fresh: Path) -> None:
        (fresh / "mine.pt").write_text("mine")
        for name in ("mine.pt", "delta.safetensors.json", ".ireu/key", "encoder-unlearned/ireu", "faces"):
            before = digests(fresh)
            for arguments in (("locate",), ("unlearn", "--mask", "mask.pt")):
                assert run_ireu(*arguments, "-o", name, "--force", cwd=fresh).code == 3
            assert digests(fresh) == before

    def test_what_was_changed_since_is_somebodys_own(self, fresh: Path) -> None:
        card = fresh / "encoder-unlearned" / "README.md"
        card.write_text(card.read_text() + "My words.")
        found = run_ireu("export", "--delta", "delta.safetensors", "--force", "--allow-failed", cwd=fresh)
        assert (found.code, "holds 1 files" in found.err) == (3, True), found.err
        assert card.read_text().endswith("My words.")
        (fresh / "mask.pt").write_bytes(b"mine")
        assert run_ireu("locate", "--force", cwd=fresh).code == 3
        assert (fresh / "mask.pt").read_bytes() == b"mine"

    @pytest.mark.parametrize("what", ["file", "folder", "link", "deep"])
    def test_something_beside_in_an_own_folder(self, tmp_path: Path, what: str) -> None:
        output = own_folder(tmp_path)
        assert found_at(output / "ireu.json", output) is not None
        if what == "file":
            (output / ".hidden").write_text("mine")
        elif what == "folder":
            (output / "empty").mkdir()
        elif what == "link":
            shutil.move(output / "a", tmp_path / "elsewhere")
            (output / "a").symlink_to(tmp_path / "elsewhere")
        else:
            write_bytes(output / "b" / "c" / "d", b"mine")
        with pytest.raises(ArtifactError, match="ireu did not write"):
            found_at(output / "ireu.json", output)

    def test_a_result_of_another_step_is_not_replaced(self, fresh: Path) -> None:
        found = run_ireu("verify", "--delta", "delta.safetensors", "-o", "encoder-unlearned", "--force", cwd=fresh)
        assert found.code == 3
        assert (fresh / "encoder-unlearned" / "ireu.json").exists()

    def test_a_lone_manifest_of_a_file_that_is_gone_is_replaced(self, fresh: Path) -> None:
        before = (fresh / "mask.pt").read_bytes()
        (fresh / "mask.pt").unlink()
        assert run_ireu("locate", cwd=fresh).code == 0
        assert (fresh / "mask.pt").read_bytes() == before

    def test_what_appears_during_the_work_stays(self, tmp_path: Path) -> None:
        output = tmp_path / "mask.pt"
        seen = state_of(manifest_path(output), output)
        output.write_text("mine")
        with pytest.raises(ArtifactError, match="in the meantime"):
            write_artifact(output, b"new", DRAFT, seen)
        assert digests(tmp_path) == {"mask.pt": b"mine"}
        folder = own_folder(tmp_path)
        seen = state_of(folder / "ireu.json", folder)

        def fill(inside: Path) -> Manifest:
            (folder / "notes").write_text("mine")
            return write_manifest(inside / "ireu.json", DRAFT, [])

        with pytest.raises(ArtifactError, match="in the meantime"):
            write_artifact_folder(folder / "ireu.json", folder, fill, seen, True)
        assert names(folder) == ["a", "ireu.json", "notes"]
        assert names(tmp_path) == ["mask.pt", "out"]

    def test_photos_of_ones_own_among_samples(self, tmp_path: Path) -> None:
        assert run_ireu("samples", tmp_path / "demo").code == 0
        mine = tmp_path / "demo" / "faces" / "me" / "1.jpg"
        mine.parent.mkdir()
        mine.write_bytes(b"mine")
        assert run_ireu("samples", tmp_path / "demo", "--force").code == 3
        assert mine.read_bytes() == b"mine"
        shutil.rmtree(mine.parent)
        assert run_ireu("samples", tmp_path / "demo", "--force").code == 0

    def test_names_in_a_manifest_stay_in_their_folder(self, tmp_path: Path) -> None:
        write_bytes(tmp_path / "secret", b"x")
        digest = sha256(b"x").hexdigest()
        for name in ("../secret", str(tmp_path / "secret")):
            with pytest.raises(ValueError, match="leads out of the folder"):
                FileRecord(name=name, sha256=digest, size=1)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
        for name in ("bytes:..%2Fsecret", f"bytes:{quote(str(tmp_path / 'secret'))}", "bytes:secret%00", "link"):
            with pytest.raises(ArtifactError, match="leads out of the folder"):
                files.check_record(FileRecord(name=name, sha256=digest, size=1), tmp_path / "in")


class TestPlaces:
    """Where nothing can be written in the end is told before the work."""

    def refused(self, job: Path, output: Path, *arguments: str) -> str:
        found = run_ireu(*(arguments or ("locate",)), "-o", output, "--force", cwd=job)
        assert found.code == 3, found.err
        assert "targets:" not in found.err, "the work had begun"
        return found.err

    def test_pipes_devices_and_links(self, job: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link.pt").symlink_to(own_file(tmp_path))
        (tmp_path / "nowhere.pt").symlink_to(tmp_path / "gone")
        (tmp_path / "folder").symlink_to(tmp_path)
        before = names(tmp_path)
        for output in (tmp_path / "pipe", Path("/dev/null")):
            assert "a device, a pipe or a socket" in self.refused(job, output)
            assert "a device, a pipe or a socket" in self.refused(job, output, "export", "--delta", "delta.safetensors")
        for name in ("link.pt", "nowhere.pt"):
            assert "is a link" in self.refused(job, tmp_path / name)
        assert "is a link" in self.refused(job, tmp_path / "folder", "verify", "--delta", "delta.safetensors")
        assert "is a link" in self.refused(job, Path("/dev/stdout"))
        assert names(tmp_path) == before

    def test_folders_for_files_and_files_for_folders(self, job: Path, tmp_path: Path) -> None:
        own_file(tmp_path)
        assert "is a folder" in self.refused(job, tmp_path)
        assert "is a file" in self.refused(job, tmp_path / "mask.pt", "export", "--delta", "delta.safetensors")
        assert "is not a folder" in self.refused(job, tmp_path / "mask.pt" / "x" / "y.pt")

    def test_folders_that_must_not_be_written(self, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By an answer of the system, as tests may run as root; for others the real thing is below."""
        monkeypatch.setattr(os, "access", lambda path, how: Path(path) != tmp_path)
        assert str(tmp_path) in self.refused(job, tmp_path / "new" / "mask.pt")
        assert "may not write to" in self.refused(job, tmp_path / "out", "export", "--delta", "delta.safetensors")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, job: Path, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o555)
        assert "may not write to" in self.refused(job, tmp_path / "closed" / "mask.pt")

    def test_mounted_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        output = own_file(tmp_path)
        monkeypatch.setattr(outputs, "is_mount_point", lambda path: path == output)
        with pytest.raises(ArtifactError, match="mount point"):
            refuse_place(manifest_path(output), output)

    def test_no_mount_points_here_and_one_that_is(self, tmp_path: Path) -> None:
        assert not system.is_mount_point(tmp_path)
        assert not system.is_mount_point(own_file(tmp_path))
        if sys.platform.startswith("linux"):
            assert system.is_mount_point(Path("/proc"))


class TestMounted:
    """A folder that something is mounted on is filled in place, and never left half without its being told."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        place = tmp_path / "out"
        place.mkdir()
        for module in (files, locks, outputs):
            monkeypatch.setattr(module, "is_mount_point", lambda path: path == place)
        rename = Path.rename

        def busy(self: Path, target: Path) -> Path:
            if place in {self, Path(target)}:
                raise OSError(errno.EBUSY, "Device or resource busy")
            return rename(self, target)

        def busy_too(_first: Path, _second: Path) -> bool:
            raise OSError(errno.EBUSY, "Device or resource busy")

        monkeypatch.setattr(Path, "rename", busy)
        monkeypatch.setattr(files, "exchange", busy_too)
        return place

    def test_it_is_filled_and_locked_inside(self, place: Path) -> None:
        with locks.beside(place, pytest.fail):
            assert names(place) == [".ireu.lock"]
            own_folder(place.parent, a=b"1", b=b"2")
            assert found_at(place / "ireu.json", place) is not None
        assert names(place) == ["a", "b", "ireu.json"]
        assert names(place.parent) == ["out"]
        with pytest.raises(ArtifactError, match="mount point"):
            outputs.refuse_full_mount(place)

    def test_a_kill_while_it_is_filled(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rename = Path.rename

        def killed(self: Path, target: Path) -> Path:
            if self.name == "b":
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            own_folder(place.parent, a=b"1", b=b"2")
        assert not (place / "ireu.json").exists()
        monkeypatch.setattr(Path, "rename", rename)
        recover(place / "ireu.json", place)
        assert names(place) == ["a", "b", "ireu.json"]
        assert found_at(place / "ireu.json", place) is not None

    def test_export_into_it(self, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place = fresh / "mounted"
        place.mkdir()
        for module in (files, locks, outputs):
            monkeypatch.setattr(module, "is_mount_point", lambda path: path.name == "mounted")
        where = ("export", "--delta", "delta.safetensors", "-o", "mounted", "--allow-failed")
        assert run_ireu(*where, cwd=fresh).code == 0
        assert digests(place).keys() == digests(fresh / "encoder-unlearned").keys()
        assert "already complete" in run_ireu(*where, cwd=fresh).err
        assert "mount point" in run_ireu(*where, "--force", cwd=fresh).err


class TestRights:
    """Private is what tells of people, from the moment it is there; an export is made to be served."""

    def test_of_a_whole_job(self, samples: Path, tmp_path: Path) -> None:
        folder = tmp_path / "demo"
        shutil.copytree(samples, folder)
        (folder / ".ireu").mkdir(mode=0o755)
        before = os.umask(0o027)
        try:
            assert run_ireu("locate", cwd=folder).code == 0
            assert run_ireu("unlearn", "--mask", "mask.pt", "--steps", "3", cwd=folder).code == 0
            assert run_ireu("verify", "--delta", "delta.safetensors", cwd=folder).code in {0, 4}
            assert run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", cwd=folder).code == 0
        finally:
            os.umask(before)
        private = [folder / name for name in ("mask.pt", "mask.pt.json", "delta.safetensors", "delta.safetensors.json")]
        for place in (folder / ".ireu", folder / "report"):
            private += [place, *place.rglob("*")]
        assert len(private) > 20
        assert [path for path in private if mode(path) & 0o077] == []
        exported = folder / "encoder-unlearned"
        assert {mode(path) for path in (exported, *exported.rglob("*")) if path.is_dir()} == {0o750}
        assert {mode(path) for path in exported.rglob("*") if path.is_file()} == {0o640}

    def test_of_shared_folders(self, tmp_path: Path) -> None:
        before = os.umask(0o022)
        try:
            inside: list[int] = []

            def fill(folder: Path) -> None:
                inside.append(mode(folder))
                (folder / "sub").mkdir(mode=0o700)
                write_bytes(folder / "sub" / "a", b"x")
                inside.append(mode(folder / "sub" / "a"))

            write_folder(tmp_path / "shared", fill, shared=True)
            write_folder(tmp_path / "own", fill)
        finally:
            os.umask(before)
        assert inside == [0o700, 0o600, 0o700, 0o600]
        paths = [tmp_path / "shared" / name for name in ("", "sub", "sub/a")]
        assert [mode(path) for path in paths] == [0o755, 0o755, 0o644]
        paths = [tmp_path / "own" / name for name in ("", "sub", "sub/a")]
        assert [mode(path) for path in paths] == [0o700, 0o700, 0o600]
        assert names(tmp_path / "shared") == ["sub"]

    def test_files_are_private_when_they_are_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[tuple[str, int, int]] = []
        original = os.open

        def noting(path: os.PathLike[str], flags: int, mode: int = 0o777, **more: int) -> int:
            if flags & os.O_CREAT:
                made.append((Path(path).name, flags, mode))
            return original(path, flags, mode, **more)

        monkeypatch.setattr(os, "open", noting)
        run = RunDir(tmp_path / "run")
        own_file(tmp_path)
        FeatureCache(run.features).put(["a"], torch.ones(1, 4))
        PictureCache(run.pictures).put("ab", torch.zeros(2, 2, 3, dtype=torch.uint8).numpy())
        with run.lock(tmp_path / "mask.pt"):
            pass
        assert len(made) >= 8
        assert [name for name, flags, rights in made if rights != 0o600 or not flags & os.O_NOFOLLOW] == []
        assert [name for name, flags, _ in made if name.endswith(".tmp") and not flags & os.O_EXCL] == []

    def test_temporary_names_cannot_be_foreseen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither from those before, nor by whoever knows the process, the time and the state of `random`."""
        monkeypatch.setattr(os, "getpid", lambda: 1)
        for clock in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"):
            monkeypatch.setattr(time, clock, lambda: 1)

        def some() -> list[str]:
            random.seed(0)
            found = []
            for _ in range(20):
                with files.staged(tmp_path / "a", b"x") as path:
                    found.append(path.name)
            return found

        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, "\n".join(some()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        theirs = os.read(reader, 100_000).decode().split("\n")
        os.close(reader)
        os.close(writer)
        assert len({*some(), *theirs}) == 40

    def test_a_planted_lock_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("mine")
        (tmp_path / files.lock_name(tmp_path / "out")).symlink_to(tmp_path / "victim")
        with pytest.raises(ArtifactError, match="cannot be written"), locks.beside(tmp_path / "out", print):
            pass
        assert (tmp_path / "victim").read_text() == "mine"

    def test_a_run_folder_that_is_there_is_closed_to_others(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run").chmod(0o775)
        RunDir(tmp_path / "run")
        assert mode(tmp_path / "run") == 0o700

    def test_a_folder_of_other_files_is_no_run_folder(self, tmp_path: Path) -> None:
        """Others would lose the way to them, as to everything below /tmp."""
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o1777)
        (tmp_path / "shared" / "file").write_text("mine")
        with pytest.raises(ArtifactError, match=r"The run folder \S+shared is open to others and holds files"):
            RunDir(tmp_path / "shared").key_name  # noqa: B018
        assert mode(tmp_path / "shared") == 0o1777
        assert names(tmp_path / "shared") == ["file"]
        (tmp_path / "shared").chmod(0o700)
        assert RunDir(tmp_path / "shared").key_name
        (tmp_path / "shared").chmod(0o755)
        assert RunDir(tmp_path / "shared").key_name
        assert mode(tmp_path / "shared") == 0o700

    def test_a_run_folder_of_another_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run").chmod(0o777)

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "chmod", refuse)
        RunDir(tmp_path / "run")  # one's own, on a file system without rights
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
        with pytest.raises(ArtifactError, match=r"The run folder \S+run belongs to another user"):
            RunDir(tmp_path / "run")
        monkeypatch.undo()
        monkeypatch.setattr(os, "access", lambda path, how: False)
        with pytest.raises(ArtifactError, match=r"The run folder \S+run is read-only, or belongs to another user"):
            RunDir(tmp_path / "run")


class TestLocks:
    """One process at a time writes an output."""

    def test_two_run_folders_and_one_output(self, tmp_path: Path) -> None:
        first, second = RunDir(tmp_path / "a"), RunDir(tmp_path / "b")
        output = tmp_path / "results" / "mask.pt"
        with first.lock(output):
            with pytest.raises(ArtifactError, match="Another ireu process is writing"), second.lock(output):
                pass
            with second.lock(tmp_path / "results" / "other.pt"):
                pass
            with pytest.raises(ArtifactError, match="Another ireu process"), second.lock(output):
                pass
        assert names(tmp_path / "results") == []
        with second.lock(output):
            pass

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
    def test_file_systems_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        def refuse(_file: object, _how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        told: list[str] = []
        with RunDir(tmp_path / "run", told.append).lock(tmp_path / "out"):
            pass
        assert ["no locks" in text for text in told] == [True]

    @pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
    def test_a_lock_that_is_held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        def refuse(_file: object, _how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        run = RunDir(tmp_path / "run")
        with pytest.raises(ArtifactError, match="Another ireu process"), run.lock(tmp_path / "out"):
            pass

    def test_whoever_waited_for_a_lock_that_is_gone_makes_a_new_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, ask = tmp_path / "lock", system.hold
        asked: list[int] = []

        def slow(descriptor: int) -> system.Hold:
            if not asked:
                path.unlink()  # its holder ends between opening and asking
            asked.append(descriptor)
            return ask(descriptor)

        monkeypatch.setattr(locks, "hold", slow)
        with locks.held(path, tmp_path / "out", pytest.fail):
            assert path.exists()
        assert len(asked) == 2


class TestKills:
    """Whoever looks finds the old or the new, whole; what a kill left is put in order by the next run."""

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the call is Linux's")
    def test_a_served_folder_is_never_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        output = own_folder(tmp_path)
        rename, ask = Path.rename, system.exchange
        exchanged: list[bool] = []

        def looking(self: Path, target: Path) -> Path:
            found = rename(self, target)
            assert output.exists(), f"missing after {self.name} became {target.name}"
            return found

        def noting(first: Path, second: Path) -> bool:
            exchanged.append(ask(first, second))
            return exchanged[-1]

        monkeypatch.setattr(Path, "rename", looking)
        monkeypatch.setattr(files, "exchange", noting)
        own_folder(tmp_path, a=b"new")
        assert exchanged == [True]
        assert (output / "a").read_bytes() == b"new"
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("hit", [1, 2])
    def test_without_an_exchange_an_interruption_brings_the_old_one_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hit: int
    ) -> None:
        output = own_folder(tmp_path)
        monkeypatch.setattr(files, "exchange", lambda first, second: False)
        rename, count = Path.rename, [0]

        def stopping(self: Path, target: Path) -> Path:
            count[0] += 1
            if count[0] == hit:
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", stopping)
        with pytest.raises(KeyboardInterrupt):
            own_folder(tmp_path, a=b"new")
        assert (output / "a").read_bytes() == b"old"
        assert names(tmp_path) == ["out"]
        monkeypatch.setattr(Path, "rename", rename)
        own_folder(tmp_path, a=b"new")
        assert (output / "a").read_bytes() == b"new"
        assert names(tmp_path) == ["out"]

    def test_without_an_exchange_a_kill_between_the_renames(self, tmp_path: Path) -> None:
        output = own_folder(tmp_path)
        output.rename(tmp_path / ".out.ireu-0123456789abcdef.previous")
        recover(output / "ireu.json", output)
        assert (output / "a").read_bytes() == b"old"
        own_folder(tmp_path, ".out.previous")
        recover(output / "ireu.json", output)
        assert names(tmp_path) == ["out"]
        output.rename(tmp_path / ".out.previous")
        recover(output / "ireu.json", output)
        assert (output / "a").read_bytes() == b"old"

    @pytest.mark.parametrize("old", [None, b"old"])
    @pytest.mark.parametrize("hit", [1, 2])
    def test_a_file_and_its_manifest_belong_together(self, tmp_path: Path, old: bytes | None, hit: int) -> None:
        """A child is killed before the first and before the second of the two renames."""
        output = tmp_path / "mask.pt"
        if old is not None:
            own_file(tmp_path, old)
        child = os.fork()
        if child == 0:
            replace, count = Path.replace, [0]

            def killed(self: Path, target: Path) -> Path:
                count[0] += 1
                if count[0] == hit:
                    os._exit(9)
                return replace(self, target)

            Path.replace = killed  # type: ignore[method-assign, assignment]
            own_file(tmp_path, b"new")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        recover(manifest_path(output), output)
        expected = old if hit == 1 else b"new"
        if expected is None:
            assert names(tmp_path) == []
            return
        assert names(tmp_path) == ["mask.pt", "mask.pt.json"]
        assert output.read_bytes() == expected
        assert found_at(manifest_path(output), output) is not None

    def test_an_interruption_between_the_two_renames(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own_file(tmp_path)
        replace, count = Path.replace, [0]

        def stopping(self: Path, target: Path) -> Path:
            count[0] += 1
            if count[0] == 2:
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            own_file(tmp_path, b"new")
        assert names(tmp_path) == ["mask.pt", "mask.pt.json"]
        assert read_manifest(tmp_path / "mask.pt.json").outputs[0].size == 3
        assert (tmp_path / "mask.pt").read_bytes() == b"new"

    def test_what_somebody_else_left_there_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        dead = f".out[1].{int(gone.stdout)}.tmp"
        ours = [".out[1].ireu-0123456789abcdef.tmp", dead]
        theirs = [
            ".out[1].mine.tmp",
            ".out1.ireu-0123456789abcdef.tmp",
            ".out[1].previous",
            f".out[1].{os.getpid()}.tmp",
        ]
        for name in (*ours, *theirs):
            write_bytes(tmp_path / name / "a", b"x")
        output = tmp_path / "out[1]"
        recover(output / "ireu.json", output)
        assert names(tmp_path) == sorted(theirs)
        (tmp_path / ours[0]).symlink_to(tmp_path / theirs[0])
        recover(output / "ireu.json", output)
        assert names(tmp_path) == sorted([*theirs, ours[0]])
        (tmp_path / ours[0]).unlink()
        (tmp_path / ours[0]).write_text("of another user")
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
        recover(output / "ireu.json", output)
        assert names(tmp_path) == sorted([*theirs, ours[0]])

    def test_half_files_in_the_run_folder_go_after_a_day(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path / "run")
        young, old, mine = (run.features / f".a.{middle}.tmp" for middle in ("ireu-" + "0" * 16, "123", "mine"))
        for path in (young, old, mine):
            write_bytes(path, b"half")
        for path in (old, mine):
            os.utime(path, (time.time() - 100_000,) * 2)
        run.start(DRAFT, tmp_path / "out")
        assert names(run.features) == sorted([young.name, mine.name])


class TestRuns:
    """Two runs that differ in their output alone do not know of each other."""

    def test_each_output_has_a_folder(self, tmp_path: Path) -> None:
        run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
        run.start(DRAFT, tmp_path / "a")
        run.write_checkpoint(DRAFT.identity, {"w": torch.ones(1)}, {"step": 1})
        other.start(DRAFT, tmp_path / "b")
        assert other.read_checkpoint(DRAFT.identity) is None
        other.finish(DRAFT.identity)
        assert run.is_running(DRAFT.identity, tmp_path / "a")
        assert run.read_checkpoint(DRAFT.identity) is not None
        assert not run.is_running(DRAFT.identity, tmp_path / "b")

    def test_what_an_earlier_version_began_goes_on(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path / "run")
        earlier = run.path / "running" / DRAFT.identity[:32]
        run.write_checkpoint(DRAFT.identity, {"w": torch.ones(1)}, {"step": 7})
        write_bytes(earlier / "output", str(tmp_path / "a").encode())
        assert not run.is_running(DRAFT.identity, tmp_path / "b")
        assert run.is_running(DRAFT.identity, tmp_path / "a")
        found = run.read_checkpoint(DRAFT.identity)
        assert found is not None
        assert found[1] == {"step": 7}
        run.finish(DRAFT.identity)
        assert names(run.path / "running") == []

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
    @pytest.mark.parametrize("renames", [True, False])
    def test_a_key_without_hard_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, renames: bool
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refuse)
        if not renames:
            monkeypatch.setattr(system, "_renameat2", lambda: None)
        first, again = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
        assert first.key_name == again.key_name
        assert names(first.path) == [".gitignore", "key"]
        assert mode(first.path / "key") == 0o600
        # Where another process was first, its key is the one.
        with files.staged(first.path / "key", b"other") as fresh:
            assert not system.place_new(fresh, first.path / "key")
        assert RunDir(tmp_path / "run").key_name == first.key_name


class TestNames:
    """Names of files need not be text, nor short."""

    BAD = os.fsdecode(b"M\xfcller")

    @given(st.binary(min_size=1).filter(lambda data: b"/" not in data and b"\0" not in data))
    def test_every_name_goes_into_a_manifest_and_back(self, data: bytes) -> None:
        name = os.fsdecode(data)
        told = portable_name(name)
        told.encode()
        assert native_name(told) == name
        assert portable_name("mask.pt") == "mask.pt"

    def test_a_job_in_a_folder_and_with_results_named_so(self, samples: Path, tmp_path: Path) -> None:
        folder = tmp_path / self.BAD
        shutil.copytree(samples, folder)
        mask, delta = f"{self.BAD}.pt", f"{self.BAD}.safetensors"
        steps = [
            # What loads encoders reads no such path; the photos and everything that is written are in one.
            ("locate", "--encoder", samples / "encoder", "-o", mask),
            ("unlearn", "--mask", mask, "--steps", "2", "-o", delta),
            ("export", "--delta", delta, "--set", "export.min_edit_kept=0.01", "--allow-failed", "-o", self.BAD),
        ]
        for step in steps:
            found = run_ireu(*step, cwd=folder)
            assert found.code == 0, found.err
        for step in steps:
            assert "already complete" in run_ireu(*step, cwd=folder).err
            assert run_ireu(*step, "--force", cwd=folder).code == 0
        assert read_manifest(folder / f"{mask}.json").outputs[0].name == "bytes:M%FCller.pt"

    def test_long_names(self, tmp_path: Path) -> None:
        output = tmp_path / ("n" * 250)
        assert found_at(manifest_path(output), own_file(tmp_path, name="n" * 250)) is not None
        with locks.beside(output, pytest.fail):
            recover(manifest_path(output), output)
        with pytest.raises(ArtifactError, match="File name too long"):
            refuse_place(tmp_path / ("n" * 256), tmp_path / ("n" * 251))


class TestRefusals:
    """What the system refuses is told with the place that it is about."""

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = RunDir(tmp_path / "run")

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ArtifactError, match=r"Free space on its disk, .* with --run-dir"):
            run.remember("a", {})
        with pytest.raises(ArtifactError, match=r"Free space on its disk, .* with --out"):
            own_file(tmp_path)
        with pytest.raises(ArtifactError, match=r"Free space on its disk, .* with --run-dir"):
            RunDir(tmp_path / "new").keyed_digest("a")

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
    def test_caches_are_not_emptied_when_they_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        FeatureCache(tmp_path / "f").put(["a"], torch.ones(1, 4))
        PictureCache(tmp_path / "p").put("ab", torch.zeros(2, 2, 3, dtype=torch.uint8).numpy())
        before = digests(tmp_path)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        ready = FeatureCache(tmp_path / "f")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", refuse)
            assert FeatureCache(tmp_path / "f").missing(["a"]) == ["a"]
            assert ready.missing(["a"]) == ["a"]
            patch.setattr("ireu_cli.store.picture_cache.Image.open", refuse)
            assert PictureCache(tmp_path / "p").get("ab") is None
        assert digests(tmp_path) == before
        assert FeatureCache(tmp_path / "f").missing(["a"]) == []

    def test_a_cache_file_that_another_process_takes_away(self, tmp_path: Path) -> None:
        FeatureCache(tmp_path).put(["a"], torch.ones(1, 4))
        cache = FeatureCache(tmp_path)
        next(tmp_path.glob("*.safetensors")).unlink()
        assert cache.missing(["a"]) == ["a"]
