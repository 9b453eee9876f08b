"""Searches that are shared like everything else: some attacks cost more than all pictures together."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.sharding.executor import Outcome, Positions, Shard, Stage
from ireu_cli.values import Json


def search(
    session: Session, name: Json, count: int, size: int, find: Callable[[list[int]], dict[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Search for something for each of a list, some of them at a time.

    Args:
        session: the run.
        name: everything that decides what is found.
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

    stage = Stage(lambda: digest_of(["search", name]), np.arange(count), size)
    session.executor.go_through(stage, compute, lambda outcome: found.append(outcome.tensors), lambda _count: None)
    return found
