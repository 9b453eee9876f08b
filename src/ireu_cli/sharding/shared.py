"""Several processes that share stages through a folder: each does shards that nobody else has, until all are done."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ireu_cli.errors import PartDoneError, WorkerDoneError
from ireu_cli.sharding.board import Board
from ireu_cli.sharding.claims import Claims
from ireu_cli.sharding.executor import Compute, Outcome, Shard, Stage

_FORGOTTEN = 30 * 24 * 3600
"""Seconds after which the folder of a step that was stopped is removed."""
_SOON, _LATER = 0.05, 1.0
"""The seconds between two looks at what the others have done, at first and at most."""


class Helpers(Protocol):
    """Processes that help this one."""

    def end(self) -> None:
        """End them."""


@dataclass(frozen=True)
class Fixed:
    """A fixed part of the shards: number `index`, from 0, of `count`, and how many seconds to wait for the others."""

    index: int
    count: int
    patience: float


class Shared:
    """An executor that shares a folder with others."""

    is_alone = False

    def __init__(
        self,
        folder: Path,
        *,
        is_worker: bool,
        stale: float,
        fixed: Fixed | None = None,
        begin: Callable[[], Helpers] | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the folder of a step.

        Args:
            folder: where stages are shared; all processes of the step have the same.
            is_worker: whether this process only helps another one.
            stale: seconds after which a claim that nobody touched is free.
            fixed: the part that this process does; None: whatever nobody else does.
            begin: starts helpers, as soon as there is more than one shard to do.
            threads: how many threads to compute shards with; None: as many as else. What is not shared is computed with
                all, because the number of threads decides the last bits of some of it.
        """
        self.is_worker = is_worker
        self._folder, self._fixed, self._begin, self._threads = folder, fixed, begin, threads
        self._helpers: Helpers | None = None
        self._claims = Claims(stale)

    def go_through(
        self, stage: Stage, compute: Compute, collect: Callable[[Outcome], None], others: Callable[[int], None]
    ) -> bool:
        """See `Executor`."""
        if not len(stage.todo) and not self._folder.exists():
            return False
        board = Board(self._folder / stage.name()[:32], stage)
        own: set[int] = set()
        watch = _Watch(board, own, others)
        if self._begin is not None and len(board.shards) > 1:
            self._helpers, self._begin = self._begin(), None
        while True:
            with _computing_with(self._threads):
                for shard, outcome in compute(board.todo, self._free(board, stage)):
                    board.finish(shard, outcome)
                    self._claims.give_back(board.claim(shard))
                    own.add(shard.number)
            if not (left := watch.left()):
                break
            self._wait(watch, left)
        for shard in board.shards:
            collect(self._last_word(board, shard, stage, compute))
        return True

    def _last_word(self, board: Board, shard: Shard, stage: Stage, compute: Compute) -> Outcome:
        """What a shard gave; what others could not use is tried again by the process that writes the artifact."""
        outcome = board.outcome(shard)
        if self.is_worker or stage.stands(outcome, board.todo[shard.first : shard.end]):
            return outcome
        with _computing_with(self._threads):
            for _, again in compute(board.todo, iter([shard])):
                board.finish(shard, again)
                return again
        return outcome

    def leave(self) -> None:
        """See `Executor`."""
        if self.is_worker:
            raise WorkerDoneError

    def end(self) -> None:
        """See `Executor`."""
        self.stop()
        if not self.is_worker:
            shutil.rmtree(self._folder, ignore_errors=True)
            _sweep(self._folder.parent)

    def stop(self) -> None:
        """See `Executor`."""
        if self._helpers is not None:
            self._helpers.end()
            self._helpers = None
        self._claims.end()

    def _free(self, board: Board, stage: Stage) -> Iterator[Shard]:
        """Shards to do now, each when it is asked for."""
        done = board.done()
        # Otherwise the first part would get all stages that have one shard.
        turn = 0 if self._fixed is None else int(stage.name()[:8], 16)
        for shard in board.shards:
            if shard.number in done:
                continue
            if self._fixed is not None:
                if (shard.number + turn) % self._fixed.count == self._fixed.index:
                    yield shard
            elif self._claims.take(board.claim(shard)):
                # Somebody may have finished it since the folder was looked at.
                if board.is_done(shard):
                    self._claims.give_back(board.claim(shard))
                else:
                    yield shard

    def _wait(self, watch: "_Watch", left: int) -> None:
        """Wait until the others have done something.

        Raises:
            PartDoneError: they have not for as long as this process waits.
        """
        patience = None if self._fixed is None else self._fixed.patience
        if patience is not None and watch.idle >= patience:
            raise PartDoneError(left)
        watch.pause(patience)


@contextlib.contextmanager
def _computing_with(threads: int | None) -> Iterator[None]:
    """With so many threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sweep(folder: Path) -> None:
    """Remove what steps left behind that were stopped long ago and never run again."""
    with contextlib.suppress(OSError):
        for old in folder.iterdir():
            newest = max((path.stat().st_mtime for path in (old, *old.iterdir())), default=0.0)
            if time.time() - newest > _FORGOTTEN:
                shutil.rmtree(old, ignore_errors=True)


class _Watch:
    """How far the others are."""

    def __init__(self, board: Board, own: set[int], others: Callable[[int], None]) -> None:
        self._board, self._own, self._others = board, own, others
        self._sizes = {shard.number: shard.end - shard.first for shard in board.shards}
        # What was done before is no progress of this run.
        self._known = board.done()
        self._since, self._pause = time.monotonic(), _SOON

    @property
    def idle(self) -> float:
        """Seconds since anybody finished a shard."""
        return time.monotonic() - self._since

    def left(self) -> int:
        """How many shards are not done."""
        done = self._board.done()
        fresh = done - self._known
        # Also for nothing: here a run that was asked to stop stops.
        self._others(sum(self._sizes.get(number, 0) for number in fresh - self._own))
        if fresh:
            self._known |= fresh
            self._since, self._pause = time.monotonic(), _SOON
        return len(self._sizes) - len(done & self._sizes.keys())

    def pause(self, most: float | None) -> None:
        """Wait a little, the longer the longer nothing happened."""
        time.sleep(self._pause if most is None else min(self._pause, most))
        self._pause = min(2 * self._pause, _LATER)
