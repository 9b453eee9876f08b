"""Helpers on a Ray cluster: actors that run the same command and only do shards.

Ray only starts them, starts them again when a machine is lost, and gives them GPUs. They get the command line; photos,
features and results stay in the folders that all machines reach.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ireu_cli.errors import ConfigError

_RETRIES = 3
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
"""Ray reports its use to its makers unless told otherwise, and runs anybody's code unless it asks for a token."""


class RayWorkers:
    """Workers as actors; Ray starts one again that was lost."""

    def __init__(self, arguments: Sequence[str], count: int, address: str | None, gpus: float, threads: int) -> None:
        """Start them.

        Args:
            arguments: the command line, without the program.
            count: how many.
            address: of the cluster; None: one on this machine.
            gpus: how many GPUs each has.
            threads: how many threads each computes with; without a GPU, so many cores are kept for it.

        Raises:
            ConfigError: Ray is missing, or the cluster cannot be reached.
        """
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
            why = (str(error).strip().splitlines() or ["no reason"])[0]
            raise ConfigError(
                f"The Ray cluster {address or 'on this machine'} cannot be reached ({why})",
                "Check run.ray_address, and that all machines have the same token",
            ) from None
        cores = 1 if gpus else threads
        actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
        environment = {"OMP_NUM_THREADS": str(threads)}
        self._actors: list[Any] = [actor.remote() for _ in range(count)]
        self._work = [one.run.remote(list(arguments), str(Path.cwd()), environment) for one in self._actors]

    def end(self) -> None:
        """End them."""
        for one in self._actors:
            self._ray.kill(one)
        self._ray.shutdown()


class _Worker:
    """An actor: it runs the command as a worker, in a process of its own."""

    def run(self, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
        """Help the process that runs this command; returns the exit code."""
        import subprocess
        import sys

        from ireu_cli.sharding.processes import WORKER

        done = subprocess.run(
            [sys.executable, "-m", "ireu_cli", *arguments], cwd=folder, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, WORKER: str(os.getpid())}, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            # Ray starts it again.
            raise RuntimeError(f"a worker ended with {done.returncode}")
        return done.returncode
