"""Locks on outputs: one process writes an output at a time, whichever run folder it uses."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.store.files import disk_errors, lock_name
from ireu_cli.store.system import Hold, hold, is_mount_point

LOCK_INSIDE = ".ireu.lock"
"""The lock file inside a mount point, because the folder around it may be read-only."""
_PATIENCE, _PAUSE = 60.0, 0.01
"""Seconds for which a short wait may last, and between two looks."""
Note = Callable[[str], None]


@contextlib.contextmanager
def beside(output: Path, note: Note) -> Iterator[None]:
    """Hold the right to write `output` with a lock file beside it, which is removed afterwards.

    Folders above the output are made if needed. The system drops the lock when the process ends, however it ends.

    Args:
        output: the file or folder.
        note: called with a message if the file system has no locks.

    Raises:
        ArtifactError: another process holds it, or the folder cannot be written.
    """
    mounted = output.is_dir() and is_mount_point(output)
    path = output / LOCK_INSIDE if mounted else output.with_name(lock_name(output))
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with held(path, output, note):
        try:
            yield
        finally:
            # Delete it while it is held: a waiting process sees that it is gone, and makes a new one.
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def held(path: Path, output: Path, note: Note) -> Iterator[None]:
    """Hold the lock of a file, which is made if it does not exist.

    Raises:
        ArtifactError: another process holds it.
    """
    with disk_errors(path):
        descriptor, outcome = _open_and_ask(path)
    try:
        if outcome is Hold.TAKEN:
            raise ArtifactError(f"Another ireu process is writing {output}", "Wait for that process, or stop it")
        if outcome is Hold.NO_LOCKS:
            note(
                f"the file system of {output} has no locks; make sure that no other ireu process writes there at the "
                "same time"
            )
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waited(path: Path, output: Path, note: Note) -> Iterator[None]:
    """Hold the lock of a file, which stays there, as soon as whoever holds it lets it go.

    Args:
        path: the lock file.
        output: what it protects, for messages.
        note: called with a message if the file system has no locks.

    Raises:
        ArtifactError: another process holds it for a minute.
    """
    deadline = time.monotonic() + _PATIENCE
    with disk_errors(path):
        descriptor, outcome = _open_and_ask(path)
    try:
        while outcome is Hold.TAKEN and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            outcome = hold(descriptor)
        if outcome is Hold.TAKEN:
            raise ArtifactError(f"Another process has been writing {output} for a minute", "Stop that process")
        if outcome is Hold.NO_LOCKS:
            note(f"the file system of {output} has no locks; let one process at a time write it")
        yield
    finally:
        os.close(descriptor)


def _open_and_ask(path: Path) -> tuple[int, Hold]:
    """Open the file and ask for its lock; repeat this if the previous holder deleted the file meanwhile."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        outcome = hold(descriptor)
        if outcome is not Hold.OURS or _is_at(descriptor, path):
            return descriptor, outcome
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
