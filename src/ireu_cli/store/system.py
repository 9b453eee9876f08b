"""Calls of the operating system beyond `pathlib`: exchanges in one step, mount points, locks, default permissions."""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import sys
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any

# linux/fs.h and linux/fcntl.h
_NO_REPLACE, _EXCHANGE, _FROM_HERE = 1, 2, -100
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOTTY})
"""The errors with which file systems say that they do not support a way of renaming, or a hard link."""
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class Hold(Enum):
    """The result of asking for a lock: it is ours, it is somebody else's, or the file system has no locks."""

    OURS = auto()
    TAKEN = auto()
    NO_LOCKS = auto()


def exchange(first: Path, second: Path) -> bool:
    """Exchange two files or folders in one step, so that neither is missing at any time.

    Returns:
        Whether it was done; False if the system or the file system does not support it.

    Raises:
        OSError: it is supported, but the system refused.
    """
    return _rename(first, second, _EXCHANGE)


def place_new(source: Path, target: Path) -> bool:
    """Move a file to a name, unless somebody else has taken that name.

    Returns:
        Whether it was moved; False if another process was faster, whose file stays.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    else:
        source.unlink()
        return True
    # exFAT, SMB and many file systems in user space have no hard links.
    try:
        if _rename(source, target, _NO_REPLACE):
            return True
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(source.read_bytes())
    source.unlink()
    return True


def is_mount_point(path: Path) -> bool:
    """Whether a file or folder is a mount point, which can be neither moved nor replaced."""
    try:
        # Bind mounts within one file system have the device number of their surroundings, so mounts are compared.
        return _mount_of(path) != _mount_of(path.absolute().parent)
    except (OSError, ValueError, AttributeError):
        return path.is_mount()


def hold(descriptor: int) -> Hold:
    """Ask for the lock of an open file without waiting; the system releases it when the file is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Every other error, such as ENOLCK on NFS, says nothing about other processes.
        return Hold.TAKEN if error.errno in _HELD else Hold.NO_LOCKS
    return Hold.OURS


def usual_rights(folder: Path) -> tuple[int, int]:
    """The permissions of a new file and a new folder in a folder of ours: the user's umask, or the folder's own rule.

    They are found by trying, because asking for the umask would set it for all threads.
    """
    file, below = folder / ".rights", folder / ".rights-of-folders"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        of_files = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        file.unlink()
    below.mkdir(mode=0o777)
    try:
        return of_files, stat.S_IMODE(below.stat().st_mode)
    finally:
        below.rmdir()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, if the file system supports that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(source: Path, target: Path, how: int) -> bool:
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_FROM_HERE, os.fsencode(source), _FROM_HERE, os.fsencode(target), how) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _renameat2() -> Any:
    """The system's call, or None if there is none; `os.rename` has no exchange."""
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        found.restype = ctypes.c_int
    return found


def _mount_of(path: Path) -> int:
    """The number of the mount that a path is on, which Linux tells for an open file."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    finally:
        os.close(descriptor)
    (number,) = (line.split()[1] for line in text.splitlines() if line.startswith("mnt_id:"))
    return int(number)
