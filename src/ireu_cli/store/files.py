"""Bytes to disk and back: temporary name in the same folder, flush, rename; digests checked on read."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ireu_cli.bounded import ContentError, inside
from ireu_cli.errors import ArtifactError, InterruptedRunError
from ireu_cli.manifest import FileRecord

_CHUNK = 1 << 20


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` in one step: whoever looks sees the old bytes or the new ones.

    Args:
        path: the file; its folder is made if needed.
        data: the new content.
        durable: flush to the disk first. Caches skip it: they are checked when read.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder and put it in the place of `path`; until it is complete, what was there stays.

    Args:
        path: the folder to write.
        fill: writes the content into the temporary folder it is given; when it raises, nothing changes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    previous = path.with_name(f".{path.name}.previous")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            fill(temporary)
            flush(files_below(temporary))
            if path.exists():
                shutil.rmtree(previous, ignore_errors=True)
                path.rename(previous)
            temporary.rename(path)
            shutil.rmtree(previous, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Undo a replacement that was killed between its two renames, and drop leftovers of killed writers."""
    previous = path.with_name(f".{path.name}.previous")
    if previous.exists():
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            previous.rename(path)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        if not _alive(leftover):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def read_bytes(path: Path, what: str, remedy: str) -> bytes:
    """Read a whole file.

    Raises:
        ArtifactError: it is missing, a folder, or not readable; `what` and `remedy` fill the sentence.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{what} {path} does not exist", remedy) from None
    except OSError as error:
        raise ArtifactError(f"{what} {path} cannot be read ({type(error).__name__})", remedy) from None


def file_record(path: Path, base: Path, sha256: str | None = None) -> FileRecord:
    """Describe a file by its bytes, its name relative to `base`; without its digest, the file is read."""
    digest = sha256 or file_sha256(path)
    return FileRecord(name=path.relative_to(base).as_posix(), sha256=digest, size=path.stat().st_size)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) over a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_record(record: FileRecord, base: Path) -> None:
    """Refuse a file whose bytes are not the recorded ones.

    Raises:
        ArtifactError: missing, another size, another digest.
    """
    try:
        path = inside(base, record.name)
    except ContentError as error:
        raise ArtifactError(f"A manifest names a file elsewhere: {error.fact}", error.remedy) from None
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "Run the step that writes it again")
    if path.stat().st_size != record.size:
        found, recorded = f"{path.stat().st_size} bytes", f"{record.size} bytes"
    else:
        found, recorded = f"sha256 {file_sha256(path)}", f"sha256 {record.sha256}"
    if found != recorded:
        raise ArtifactError(
            f"{path} does not match its manifest: {found} found, {recorded} recorded",
            "Restore the file, or run the step that writes it again with --force",
        )


def files_below(folder: Path) -> list[Path]:
    """Every file of a folder, at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flush(files: Iterable[Path], is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait until files are on the disk, or until nobody wants them there any more, which is asked before each."""
    for path in files:
        if is_stopped():
            return
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _alive(leftover: Path) -> bool:
    try:
        pid = int(leftover.name.rsplit(".", 2)[1])
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (ArtifactError, InterruptedRunError):
        raise
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written ({error.strerror or type(error).__name__})",
            "Choose another place with --out, or free the disk",
        ) from None
