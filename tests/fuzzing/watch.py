"""What a reader does besides reading: files that it opens elsewhere or changes, programs, code, connections, time."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 10
"""Of the processor's time; a machine that is busy otherwise is not the reader's fault."""
_OPENED, _CHANGED = 0x20, 0x2 | 0x4 | 0x100 | 0x200 | 0x40 | 0x80
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
_seen: list[str] = []
_armed = False


class LateError(BaseException):
    """No answer in time; not an Exception, so that no reader takes it for damage."""


def _audit(event: str, arguments: Any) -> None:
    if _armed and event in _FORBIDDEN:
        _seen.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_audit)


class Outside:
    """A folder that nobody may open a file of, whoever does it: also libraries that are no Python."""

    def __init__(self, folder: Path) -> None:
        """Put something into the folder, and ask the system to tell who looks."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("secret", "secret.json", "secret.onnx", "secret.safetensors"):
            (folder / name).write_text("{}")
        self._library = ctypes.CDLL(None, use_errno=True)
        self._watch = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0 or self._library.inotify_add_watch(self._watch, os.fsencode(folder), _OPENED | _CHANGED) < 0:
            raise OSError(ctypes.get_errno(), "this system does not tell of opened files")

    def touched(self) -> bool:
        """Whether anything happened there since the last call."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._watch, 65536))
        return False

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._watch)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry of a folder, with what changes when it is written."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(place, name)
            about = path.lstat()
            is_file = name in names
            found[str(path)] = (about.st_ino, about.st_mtime_ns if is_file else 0, about.st_size if is_file else 0)
    return found


@contextlib.contextmanager
def guarded(seen: list[str]) -> Iterator[None]:
    """Note what is forbidden, and end what takes too long."""
    global _armed  # noqa: PLW0603 - audit hooks are the process's
    before = signal.signal(signal.SIGPROF, _late)
    _seen.clear()
    _armed = True
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _armed = False
        seen += _seen
        signal.signal(signal.SIGPROF, before)


def _late(*_: object) -> None:
    raise LateError(f"no answer in {SECONDS} s of the processor's time")
