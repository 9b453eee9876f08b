"""Draw several pictures at once: in one call where that was asked for, or by threads on a CPU.

A small network does not keep all cores busy with one picture. Each picture of it is drawn by a thread that works alone,
also where it is the only picture. So its bits do not depend on the number of cores, nor on which other pictures are
drawn. In one call with others, its last bits do.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Pictures
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

from ireu_cli.generators.generator import Generator, ToDraw
from ireu_cli.support.made import batched
from ireu_cli.values import RgbImage

T = TypeVar("T")
Call = tuple[Generator, list[Callable[[], ToDraw]]]
"""Who draws pictures in one call, and what from."""
Asked = tuple[Generator, Callable[[], ToDraw]]
"""Who draws a picture, and what from. The second may compute; the caller's thread calls it, shortly before its turn."""


def draw_each(asked: Sequence[Asked]) -> Pictures[RgbImage, None, None]:
    """Draw pictures, several at once where that is faster; they come in their order.

    Whoever stops early does not wait for pictures that nobody wants any more; only the process ends after them.
    """
    yield from draw_calls(list(groups(asked)))


def draw_calls(calls: Sequence[Call]) -> Pictures[RgbImage, None, None]:
    """The same for pictures whose calls are settled already, by `groups` of more pictures than these."""
    count = at_once(calls)
    if count < 2:
        for generator, call in calls:
            with _threads(1 if _works_alone(generator) else torch.get_num_threads()):
                pictures = generator.draw_together([told() for told in call])
            yield from pictures
        return
    with drawers(count) as threads:
        waiting: deque[Future[RgbImage]] = deque()
        for generator, call in calls:
            # Whoever draws beside others draws one picture in a call.
            waiting.append(threads.submit(generator, call[0]()))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def at_once(asked: Sequence[tuple[Generator, object]]) -> int:
    """How many pictures to draw at the same time: small generators on a CPU leave cores idle."""
    pipelines = {id(generator.pipeline): generator for generator, _ in asked}
    return min(len(asked), torch.get_num_threads()) if all(map(_works_alone, pipelines.values())) else 1


def groups(asked: Sequence[tuple[Generator, T]]) -> Iterator[tuple[Generator, list[T]]]:
    """What is drawn in one call: neighbours that the same generator draws with the same settings."""
    for generator, run in itertools.groupby(asked, key=lambda one: one[0]):
        for part in batched([told for _, told in run], generator.together):
            yield generator, list(part)


def _works_alone(generator: Generator) -> bool:
    return bool(generator.pipeline.device.type == "cpu" and generator.is_small and generator.together == 1)


class Drawers:
    """Threads that draw, each with copies of the generators of its own, which share their weights."""

    def __init__(self, count: int, pool: ThreadPoolExecutor) -> None:
        """Args: how many pictures are drawn at once, by the threads of the pool."""
        self._count, self._pool = count, pool
        # By the identity of a pipeline, which is held here so that no other one gets it: the copies that nobody uses.
        self._copies: dict[int, tuple[Generator, SimpleQueue[Generator]]] = {}

    def submit(self, generator: Generator, asked: ToDraw) -> Future[RgbImage]:
        """Draw a picture when a thread is free."""
        return self._pool.submit(_draw, generator, asked, self._idle(generator))

    def _idle(self, generator: Generator) -> SimpleQueue[Generator]:
        held = self._copies.get(id(generator.pipeline))
        if held is None:
            held = (generator, SimpleQueue())
            for _ in range(self._count):
                held[1].put(generator.copy())
            self._copies[id(generator.pipeline)] = held
        return held[1]


def _draw(generator: Generator, asked: ToDraw, idle: SimpleQueue[Generator]) -> RgbImage:
    """Draw with a copy, but with the settings that this picture is asked with."""
    own = idle.get()
    try:
        return own.with_settings(guidance=generator.guidance, scale=generator.scale).draw_one(asked)
    finally:
        idle.put(own)


@contextlib.contextmanager
def drawers(count: int) -> Iterator[Drawers]:
    """Threads that draw; each of them computes alone, as everything else does meanwhile."""
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    with _threads(1):
        try:
            yield Drawers(count, pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """With how many threads torch computes meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
