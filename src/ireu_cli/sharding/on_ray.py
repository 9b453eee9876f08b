"""Helpers on a Ray cluster: actors that run the same command and only do shards.

Ray only starts them, starts them again when a machine is lost, and gives them GPUs. They get the command line; photos,
features and results stay in the folders that all machines reach.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ireu_cli.errors import ConfigError
from ireu_cli.params import RunParams

_RETRIES = 3
_LOOKS, _LATE = 0.5, 60.0
"""Seconds between two looks at the workers, and after which they should have begun."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
"""Ray reports its use to its makers unless told otherwise, and runs anybody's code unless it asks for a token."""


class RayWorkers:
    """Workers as actors; Ray starts one again that was lost."""

    def __init__(self, arguments: Sequence[str], run: RunParams, threads: int, note: Callable[[str], None]) -> None:
        """Start them.

        Args:
            arguments: the command line, without the program.
            run: how many workers, of which cluster, with how many GPUs.
            threads: how many threads each computes shards with; without a GPU, so many cores are kept for it.
            note: called with messages for the user.

        Raises:
            ConfigError: Ray is missing, or the cluster cannot be reached.
        """
        address, count, gpus = run.ray_address, run.processes, run.worker_gpus
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "The executor ray needs the package ray", "Install it with pip install 'ireu[cluster]'"
            ) from None
        self._ray: Any = ray
        try:
            ray.init(
                address or "local", log_to_driver=False, include_dashboard=False if address is None else None,
                ignore_reinit_error=True,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"The Ray cluster {address or 'on this machine'} cannot be reached ({_line(str(error), 0)})",
                "Check run.ray_address, and that all machines have the same token",
            ) from None
        cores = 1 if gpus else threads
        actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
        # Other machines know neither the driver's settings nor its folder.
        settings = {name: value for name, value in os.environ.items() if name.startswith("IREU_")}
        # What is not shared is computed with as many threads as the driver has, not with as many as Ray keeps cores.
        settings["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        self._actors: list[Any] = [actor.remote() for _ in range(count)]
        self._begun = [one.begin.remote() for one in self._actors]
        self._work = [
            one.run.options(retry_exceptions=True).remote(list(arguments), str(Path.cwd()), settings, threads)
            for one in self._actors
        ]
        self._note, self._ended = note, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End them."""
        self._ended.set()
        self._thread.join()
        for one in self._actors:
            self._ray.kill(one)
        self._ray.shutdown()

    def _watch(self) -> None:
        """Tell of workers that do not begin, or fail."""
        left, since, is_told = list(self._work), time.monotonic(), False
        while left and not self._ended.wait(_LOOKS):
            done, left = self._ray.wait(left, timeout=0)
            for one in done:
                try:
                    self._ray.get(one)
                except Exception as error:  # noqa: BLE001 - whatever it is, the driver goes on without this worker
                    self._note(f"a worker on Ray is lost: {_line(str(error), -1)}")
            if not is_told and time.monotonic() - since > _LATE:
                is_told = True
                _, late = self._ray.wait(self._begun, num_returns=len(self._begun), timeout=0)
                if late:
                    self._note(f"{len(late)} of {len(self._begun)} workers have not begun: the Ray cluster has no room")


def _line(text: str, number: int) -> str:
    """The first line of a message (0), or the last (-1)."""
    return (text.strip().splitlines() or ["no reason"])[number]


class _Worker:
    """An actor: it runs the command as a worker, in a process of its own."""

    def begin(self) -> None:
        """Nothing: whoever answers has begun."""

    def run(self, arguments: list[str], folder: str, settings: dict[str, str], threads: int) -> None:
        """Help the process that runs this command.

        Raises:
            RuntimeError: it failed; Ray starts it again a few times.
        """
        import subprocess
        import sys

        from ireu_cli.sharding.processes import WORKER

        done = subprocess.run(
            [sys.executable, "-m", "ireu_cli", *arguments], cwd=folder, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, **settings, WORKER: f"{os.getpid()}:{threads}"}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:
            said = _line(done.stderr.decode(errors="replace"), -1)
            raise RuntimeError(f"it ended with {done.returncode} ({said})")
