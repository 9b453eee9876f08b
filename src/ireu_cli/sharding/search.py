"""Things that are computed for each of a list, and are shared: some attacks cost more than all pictures together."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from ireu_cli.sharding.executor import Executor, Outcome, Positions, Shard, Stage


def search(
    executor: Executor, name: Callable[[], str], count: int, size: int, find: Callable[[list[int]], dict[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Search for something for each of a list, some of them at a time.

    Args:
        executor: has it done.
        name: gives a digest (hex) of everything that decides what is found; only asked for if others take part.
        count: the length of the list.
        size: how many are searched for at a time.
        find: gets their places, and gives what it found for them.

    Returns:
        What was found, in the order of the list.
    """
    found: list[dict[str, Tensor]] = []

    def compute(positions: Positions, shards: Iterator[Shard]) -> Iterator[tuple[Shard, Outcome]]:
        for shard in shards:
            yield shard, Outcome(tensors=find(positions[shard.first : shard.end].tolist()))

    stage = Stage(name, np.arange(count), size)
    executor.go_through(stage, compute, lambda outcome: found.append(outcome.tensors), lambda _count: None)
    return found
