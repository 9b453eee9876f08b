"""Lazy sequences of too many items to hold: made on access, or processed some at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Generic, TypeVar, overload

G = TypeVar("G", bound=Sized)
S = TypeVar("S")
T = TypeVar("T")


class Made(Sequence[T], Generic[S, T]):
    """The result of `make` for each item of a sequence, made again on every access."""

    def __init__(self, source: Sequence[S], make: Callable[[S], T]) -> None:
        """Args: `source` is held; `make` gives the same result for the same item."""
        self._source, self._make = source, make

    def __len__(self) -> int:
        """The number of items."""
        return len(self._source)

    def __iter__(self) -> Iterator[T]:
        """All items, one after the other."""
        return map(self._make, self._source)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        """One item, or a slice, whose items are also made one by one."""
        if isinstance(place, slice):
            return Made(self._source[place], self._make)
        return self._make(self._source[place])


def in_pieces(groups: Iterable[G], at_once: int) -> Iterator[list[G]]:
    """Iterate over groups, some at a time, until they hold a number of items together."""
    waiting: list[G] = []
    count = 0
    for group in groups:
        waiting.append(group)
        count += len(group)
        if count >= at_once:
            yield waiting
            waiting, count = [], 0
    if waiting:
        yield waiting


def batched(every: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """A sequence in parts of a size; the last one may be smaller."""
    for first in range(0, len(every), size):
        yield every[first : first + size]
