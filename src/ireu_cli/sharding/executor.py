"""What an executor is: it has the shards of a stage done, and hands their outcomes over in the order of the shards.

A stage is a list of things to encode, draw or search. Shards are runs of it, of one size. What a shard gives depends on
nothing but its things, and outcomes are put together in the order of the shards. So the result has the same bits,
whoever does which shard, in whatever order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard: its number, and the places in the stage's list from `first` up to `end`, without `end`."""

    number: int
    first: int
    end: int


@dataclass(frozen=True)
class Outcome:
    """What a shard gave: things that cannot be used, by key and why, and tensors that cannot be found elsewhere."""

    unusable: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Something to do with each of a list.

    Attributes:
        name: gives a digest (hex) of everything that decides the outcomes; only asked for if others take part.
        todo: positions of the things that are left to do, as this process sees it: int64 (n,).
        size: the number of things in a shard; the last shard may have fewer.
        head: the number of things in the first shard, if it is another one.
        is_loose: whether outcomes do not depend on shards, so that a process that works alone may do all as one.
        stands: says of an outcome that others made, and the positions of its shard, whether it still holds.
    """

    name: Callable[[], str]
    todo: Positions
    size: int
    head: int = 0
    is_loose: bool = False
    stands: Callable[[Outcome, Positions], bool] = field(default=lambda _outcome, _positions: True)


Compute = Callable[[Positions, Iterator[Shard]], Iterator[tuple[Shard, Outcome]]]
"""Does shards of an agreed list of positions. It may ask for one shard more than it has finished, to read ahead."""


class Executor(Protocol):
    """Who does the shards of stages."""

    @property
    def is_worker(self) -> bool:
        """Whether this process only helps another one, and writes no artifact."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether nobody else takes part."""
        ...

    def go_through(
        self, stage: Stage, compute: Compute, collect: Callable[[Outcome], None], others: Callable[[int], None]
    ) -> bool:
        """Have every shard of a stage done once.

        Args:
            stage: the stage.
            compute: does shards here.
            collect: gets the outcome of every shard, in the order of the shards.
            others: called with a number of things that others finished.

        Returns:
            Whether others may have done some of it.

        Raises:
            PartDoneError: this process has done its part, and others have not done theirs.
        """
        ...

    def leave(self) -> None:
        """Say that no shared work follows for a while: a worker ends here.

        Raises:
            WorkerDoneError: this process is a worker.
        """
        ...

    def end(self) -> None:
        """End the workers, and forget what only they needed; the step is done."""
        ...

    def stop(self) -> None:
        """End the workers; the step is not done, and goes on another time."""
        ...


def cut(count: int, size: int, head: int = 0) -> list[Shard]:
    """The shards of a list; `head` is the size of the first one, if it is another one."""
    firsts = [*([0] if 0 < head < count else []), *range(head if head < count else 0, count, size)]
    return [Shard(number, first, end) for number, (first, end) in enumerate(pairwise([*firsts, count]))]


class Alone:
    """This process does everything."""

    is_worker, is_alone = False, True

    def go_through(
        self, stage: Stage, compute: Compute, collect: Callable[[Outcome], None], _others: Callable[[int], None]
    ) -> bool:
        """See `Executor`."""
        size = len(stage.todo) if stage.is_loose else stage.size
        for _, outcome in compute(stage.todo, iter(cut(len(stage.todo), max(1, size), stage.head))):
            collect(outcome)
        return False

    def leave(self) -> None:
        """See `Executor`."""

    def end(self) -> None:
        """See `Executor`."""

    def stop(self) -> None:
        """See `Executor`."""
