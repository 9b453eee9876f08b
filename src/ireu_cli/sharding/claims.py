"""Claims on shards: files that say that somebody is at work. Who is at work touches them now and then.

A claim that nobody touched for a while is free again. Two processes may end up with one shard that way, and both do it
with the same result; so nothing depends on clocks or on locks of a file system.
"""

import contextlib
import os
import threading
from pathlib import Path

_TOUCHES = 5
"""How often a claim is touched before it would count as left behind."""


class Claims:
    """The claims of one process."""

    def __init__(self, stale: float) -> None:
        """Args: the seconds after which a claim that nobody touched is free."""
        self._stale = stale
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, path: Path) -> bool:
        """Take a claim, if nobody has it."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        except FileExistsError:
            if not self._is_left(path):
                return False
            with contextlib.suppress(OSError):
                os.utime(path)
        with self._lock:
            self._held.add(path)
        self._keep_touching()
        return True

    def give_back(self, path: Path) -> None:
        """Drop a claim."""
        with self._lock:
            self._held.discard(path)
        path.unlink(missing_ok=True)

    def end(self) -> None:
        """Drop all claims."""
        self._ended.set()
        with self._lock:
            held = list(self._held)
        for path in held:
            self.give_back(path)

    def _is_left(self, path: Path) -> bool:
        """Whether a claim was not touched for long, by the clock of its file system."""
        clock = path.with_name(f"clock-{os.getpid()}")
        try:
            clock.touch(0o600)
            return clock.stat().st_mtime - path.stat().st_mtime > self._stale
        except OSError:
            # It was dropped meanwhile, or the folder is gone.
            return False

    def _keep_touching(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._touch, daemon=True)
            self._thread.start()

    def _touch(self) -> None:
        while not self._ended.wait(self._stale / _TOUCHES):
            with self._lock:
                held = list(self._held)
            for path in held:
                with contextlib.suppress(OSError):
                    os.utime(path)
