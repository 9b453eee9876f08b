"""Choose who does the work of a step."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ireu_cli.errors import ConfigError
from ireu_cli.params import RunParams
from ireu_cli.sharding.executor import Alone, Executor
from ireu_cli.sharding.processes import WORKER, Processes, end_with
from ireu_cli.sharding.shared import Fixed, Helpers, Shared
from ireu_cli.support.invocation import command_line

_LOG = "workers.log"
_open: list[Executor] = []
"""Executors whose workers may still run."""


@contextlib.contextmanager
def workers_ended() -> Iterator[None]:
    """Run a step: none of its workers outlives it, however it ends."""
    try:
        yield
    finally:
        while _open:
            _open.pop().stop()


def executor_for(run: RunParams, folder: Path, note: Callable[[str], None]) -> Executor:
    """The executor that the settings ask for.

    Args:
        run: the settings.
        folder: where the step's stages are shared; it may not exist.
        note: called with messages for the user.

    Raises:
        ConfigError: workers are asked for, and there is no command line that they could run.
    """
    found = _chosen(run, folder, note)
    _open.append(found)
    return found


def _chosen(run: RunParams, folder: Path, note: Callable[[str], None]) -> Executor:
    stale = run.stale_seconds
    if (told := os.environ.get(WORKER)) is not None:
        parent, _, given = told.partition(":")
        if parent.isdecimal():
            end_with(int(parent))
        return Shared(folder, is_worker=True, stale=stale, threads=int(given) if given.isdecimal() else None)
    if run.shard is not None:
        number, _, count = run.shard.partition("/")
        fixed = Fixed(int(number) - 1, int(count), run.patience_seconds)
        return Shared(folder, is_worker=True, stale=stale, fixed=fixed)
    if run.executor == "local" and run.processes == 1:
        # Parts of a job array, or an earlier run with workers, may have done some of it.
        return Shared(folder, is_worker=False, stale=stale) if folder.exists() else Alone()
    arguments = command_line()
    if arguments is None:
        raise ConfigError(
            "run.executor and run.processes only work on the command line", "Run `ireu` as a command, or leave them out"
        )
    # Workers on other machines have cores of their own.
    here = run.processes if run.executor == "local" else 1 if run.ray_address else run.processes + 1
    threads = max(1, torch.get_num_threads() // here)

    def begin() -> Helpers:
        if run.executor == "ray":
            from ireu_cli.sharding.on_ray import RayWorkers

            return RayWorkers(arguments, run, threads, note)
        return Processes(arguments, run.processes - 1, folder / _LOG, threads, note)

    return Shared(folder, is_worker=False, stale=stale, begin=begin, threads=threads)
