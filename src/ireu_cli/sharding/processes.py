"""Helpers on this machine: the same command in further processes, which only do shards."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ireu_cli.store.files import make_private_folder

WORKER = "_IREU_WORKER"
"""The variable that tells a process that it is a worker: the process that it helps, and threads to do shards with."""
_NOT_AN_ACCIDENT = frozenset({None, 0, 2, 3})
"""Running, done, or refused by the user's own settings and files: the driver meets the same, and says so."""
_TRIES = 3
"""How often a worker is started again that ended by accident."""
_LOOKS = 0.5
"""Seconds between two looks at the workers."""


class Processes:
    """Workers as processes; one that is killed is started again."""

    def __init__(
        self, arguments: Sequence[str], count: int, log: Path, threads: int, note: Callable[[str], None]
    ) -> None:
        """Start them.

        Args:
            arguments: the command line, without the program.
            count: how many.
            log: the file that gets what they say.
            threads: how many threads each computes shards with.
            note: called with messages for the user.
        """
        self._command = [sys.executable, "-m", "ireu_cli", *arguments]
        self._environment = {**os.environ, WORKER: f"{os.getpid()}:{threads}"}
        self._log, self._note = log, note
        make_private_folder(log.parent)
        self._ended = threading.Event()
        self._running = [self._start() for _ in range(count)]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End them. What they keep is written under other names first, so they may be stopped anywhere."""
        self._ended.set()
        self._thread.join()
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            return subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _watch(self) -> None:
        tries = [_TRIES] * len(self._running)
        while not self._ended.wait(_LOOKS):
            for place, process in enumerate(self._running):
                if process.poll() not in _NOT_AN_ACCIDENT and tries[place]:
                    tries[place] -= 1
                    self._note(f"a worker ended with {process.returncode} and is started again; {self._log} says more")
                    self._running[place] = self._start()


def end_with(parent: int) -> None:
    """End this process as soon as the one that it helps is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
