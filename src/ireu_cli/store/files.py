"""Write bytes to disk and read them back: temporary name in the same folder, flush, rename; reading checks digests."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ireu_cli.errors import ArtifactError, InterruptedRunError
from ireu_cli.manifest import FileRecord
from ireu_cli.store.system import exchange, is_mount_point, sync_folder, usual_rights
from ireu_cli.support.bounded import ContentError, leads_inside, printable, read_bounded

RECORDS = frozenset({"ireu.json", "manifest.json", "ireu.toml"})
"""Files that are moved into a folder last: when one is there, everything that it describes is there too."""
_LONGEST = 180
"""The most bytes of a file's name, so that temporary names can add to it; file systems allow 255."""
_BYTES = "bytes:"
_HALF = re.compile(r"\..*\.(ireu-[0-9a-f]{16}|[0-9]+)\.tmp", re.DOTALL)
_DAY = 86_400
"""The age in seconds after which a file counts as no longer being written."""


def write_bytes(path: Path, data: bytes | bytearray, *, durable: bool = True) -> None:
    """Replace the content of `path` by `data` in one step: readers see either the old bytes or the new ones.

    Only the owner can read the file, and the folders that have to be made for it.

    Args:
        path: the file; its folder is made if needed.
        data: the new content.
        durable: flush to the disk first. Caches skip it: they are checked when read.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with disk_errors(path):
        make_private_folder(path.parent)
        with staged(path, data, durable=durable) as temporary:
            temporary.replace(path)
        if durable:
            sync_folder(path.parent)


@contextlib.contextmanager
def staged(path: Path, data: bytes | bytearray, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` for its future content, with an unpredictable name; it is removed at the end.

    Nobody else can read it, from the moment it exists.
    """
    temporary = _beside(path, "tmp")
    try:
        # Somebody who can write to the folder could have planted a link, so no link is followed and no file is reused.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(
    path: Path, fill: Callable[[Path], None], *, shared: bool = False, check: Callable[[], None] = lambda: None
) -> None:
    """Make a folder and replace `path` with it; the old content stays until the new folder is complete.

    Only the owner can read the folder and its files while they are written. A mount point cannot be replaced: it is
    filled instead, and has to be empty.

    Args:
        path: the folder to write.
        fill: writes the content into the temporary folder that it gets; if it raises, nothing changes.
        shared: in the end the folder gets the permissions of the user's umask, not only the owner's.
        check: called last; raises if the path has changed since.
    """
    in_place = path.is_dir() and is_mount_point(path)
    temporary = path / inner_name("tmp") if in_place else _beside(path, "tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir(mode=0o700)
            fill(temporary)
            _set_rights(temporary, shared)
            flush(files_below(temporary))
            check()
            if in_place:
                ready = path / inner_name("ready")
                temporary.rename(ready)
                move_in(ready)
            else:
                _put(temporary, path)
            sync_folder(path.parent)
        finally:
            # After an exchange this holds the old content.
            shutil.rmtree(temporary, ignore_errors=True)


def move_in(ready: Path) -> None:
    """Move the content of a complete folder into the folder around it, records last; a second call continues."""
    for entry in sorted(ready.iterdir(), key=lambda entry: (entry.name in RECORDS, entry.name)):
        target = ready.parent / entry.name
        if os.path.lexists(target):
            raise ArtifactError(f"{target} is in the way of a result that is ready beside it", "Move it elsewhere")
        entry.rename(target)
    sync_folder(ready.parent)
    ready.rmdir()


def _put(temporary: Path, path: Path) -> None:
    """Move a folder to its path; an existing folder gets the temporary name, or is removed."""
    if not path.exists() or not any(path.iterdir()):
        temporary.rename(path)
        return
    if exchange(temporary, path):
        return
    previous = _beside(path, "previous")
    try:
        path.rename(previous)
        temporary.rename(path)
    finally:
        if not path.exists():
            previous.rename(path)
        shutil.rmtree(previous, ignore_errors=True)


def _set_rights(folder: Path, shared: bool) -> None:
    of_files, of_folders = usual_rights(folder) if shared else (0o600, 0o700)
    for place, _, names in os.walk(folder, topdown=False):
        for path, rights in [*((Path(place, name), of_files) for name in names), (Path(place), of_folders)]:
            # Some file systems have no permissions. The bit that passes on a folder's group is kept.
            with contextlib.suppress(OSError):
                path.chmod(rights | (path.stat().st_mode & stat.S_ISGID))


def make_private_folder(folder: Path) -> None:
    """Make a folder and the missing folders above it, each readable only by its owner."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def inner_name(end: str) -> str:
    """A temporary name inside an output that is a mount point."""
    return f".ireu-{secrets.token_hex(8)}.{end}"


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f".{_short(path.name)}{inner_name(end)}")


def _short(name: str) -> str:
    """A name, or a digest of it if it is too long for additions or is not text, which some libraries need."""
    data = os.fsencode(name)
    return name if len(data) <= _LONGEST and portable_name(name) == name else hashlib.sha256(data).hexdigest()[:32]


def left_behind(path: Path) -> list[Path]:
    """Files that killed writers of `path` left beside it or in it; the caller must hold the lock of `path`.

    Other users' files with such a name are not included.
    """
    name = re.escape(_short(path.name))
    beside = re.compile(rf"\.{name}\.ireu-[0-9a-f]{{16}}\.(tmp|previous)", re.DOTALL)
    inside = re.compile(r"\.ireu-[0-9a-f]{16}\.(tmp|ready)")
    found = _own_entries(path.parent, lambda entry: beside.fullmatch(entry) or _is_of_dead(entry, path.name))
    if path.is_dir() and not path.is_symlink():
        found += _own_entries(path, inside.fullmatch)
    return found


def _own_entries(folder: Path, wanted: Callable[[str], object]) -> list[Path]:
    """Entries of a folder by name that belong to this user, without links."""
    try:
        paths = [path for path in folder.iterdir() if wanted(path.name)]
    except OSError:
        return []
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            kind = path.lstat()
            if kind.st_uid == os.geteuid() and (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)):
                found.append(path)
    return found


def _is_of_dead(entry: str, name: str) -> bool:
    """Whether a file has a temporary name of earlier versions, and the process in that name no longer exists."""
    middle = entry.removeprefix(f".{name}.").removesuffix(".tmp")
    if entry != f".{name}.{middle}.tmp" or not (middle.isascii() and middle.isdigit()):
        return False
    try:
        with contextlib.suppress(PermissionError):
            os.kill(int(middle), 0)
    except (ProcessLookupError, OverflowError):
        return True
    return False


def sweep(folder: Path) -> None:
    """Delete half-written files of killed runs in a folder of ours, at any depth, after a day."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if _HALF.fullmatch(name)):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < time.time() - _DAY:
                    path.unlink()


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read_bytes(path: Path, what: str, remedy: str, most: int | None = None) -> bytes:
    """Read a whole file, with a limit on its bytes if one is given.

    Raises:
        ArtifactError: it is missing, no file, larger, or not readable; `what` and `remedy` go into the message.
    """
    try:
        return path.read_bytes() if most is None else read_bounded(path, most)
    except ContentError as error:
        raise ArtifactError(f"{what} {path} {error.why}", remedy) from None
    except FileNotFoundError:
        raise ArtifactError(f"{what} {path} does not exist", remedy) from None
    except OSError as error:
        raise ArtifactError(f"{what} {path} cannot be read ({type(error).__name__})", remedy) from None


def file_record(path: Path, base: Path, sha256: str | None = None) -> FileRecord:
    """Describe a file by its bytes, with its name relative to `base`; if no digest is given, the file is read."""
    name = portable_name(path.relative_to(base).as_posix())
    return FileRecord(name=name, sha256=sha256 or file_sha256(path), size=path.stat().st_size)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) over a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place_of(record: FileRecord, base: Path) -> Path:
    """The path of a recorded file: in the manifest's folder or below it, even through links.

    Raises:
        ArtifactError: it leads elsewhere.
    """
    path = base / native_name(record.name)
    if leads_inside(base, path):
        return path
    fact = f"{printable(record.name)} leads out of the folder of its manifest"
    raise ArtifactError(fact, "Put a copy there instead of the link")


def check_record(record: FileRecord, base: Path) -> None:
    """Refuse a file whose bytes differ from the recorded ones.

    Raises:
        ArtifactError: it is missing or elsewhere, or has another size or digest.
    """
    path = place_of(record, base)
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "Run the step that writes it again")
    if path.stat().st_size != record.size:
        found, recorded = f"{path.stat().st_size} bytes", f"{record.size} bytes"
    else:
        found, recorded = f"sha256 {file_sha256(path)}", f"sha256 {record.sha256}"
    if found != recorded:
        raise ArtifactError(
            f"{path} does not match its manifest: {found} found, {recorded} recorded",
            "Restore the file, or move it away and run the step that writes it again",
        )


def files_below(folder: Path) -> list[Path]:
    """Every file of a folder, at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flush(files: Iterable[Path], is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait until files are on the disk; before each file, check whether the wait was stopped."""
    for path in files:
        if is_stopped():
            return
        with path.open("rb") as file:
            os.fsync(file.fileno())


def portable_name(name: str) -> str:
    """A file's name in records, which are UTF-8; bytes that are not text are escaped."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(name))
    return _BYTES + quote_from_bytes(name.encode()) if name.startswith(_BYTES) else name


def native_name(name: str) -> str:
    """The inverse of `portable_name`."""
    return os.fsdecode(unquote_to_bytes(name.removeprefix(_BYTES))) if name.startswith(_BYTES) else name


@contextlib.contextmanager
def disk_errors(path: Path, flag: str | None = None) -> Iterator[None]:
    """Turn the system's refusal to write `path` into an error.

    Args:
        path: the file or folder.
        flag: the flag that names it; worked out if it is left out.

    Raises:
        ArtifactError: the system refused; the message names the flag.
    """
    try:
        yield
    except (ArtifactError, InterruptedRunError):
        raise
    except OSError as error:
        if flag is None:
            flag = "--run-dir" if any(_is_run_folder(folder) for folder in path.absolute().parents) else "--out"
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise ArtifactError(
            f"{path} cannot be written ({error.strerror or type(error).__name__})",
            f"Free space on its disk, or choose another place with {flag}"
            if full
            else f"Choose another place with {flag}, or get permission to write there",
        ) from None


def _is_run_folder(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return (folder / ".gitignore").is_file() and (folder / "key").is_file()
    return False


def lock_name(path: Path) -> str:
    """The name of the lock file beside an output."""
    return f".{_short(path.name)}.ireu.lock"
