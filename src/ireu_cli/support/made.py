"""Too many things to hold: made whenever somebody looks, or gone through some at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Generic, TypeVar, overload

G = TypeVar("G", bound=Sized)
S = TypeVar("S")
T = TypeVar("T")


class Made(Sequence[T], Generic[S, T]):
    """What `make` gives of each thing of a sequence, made anew whenever somebody looks."""

    def __init__(self, source: Sequence[S], make: Callable[[S], T]) -> None:
        """Args: `source` is held; `make` gives the same of the same thing."""
        self._source, self._make = source, make

    def __len__(self) -> int:
        """How many things."""
        return len(self._source)

    def __iter__(self) -> Iterator[T]:
        """All things, one after the other."""
        return map(self._make, self._source)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        """One thing, or some, which are made one by one as well."""
        if isinstance(place, slice):
            return Made(self._source[place], self._make)
        return self._make(self._source[place])


def in_pieces(groups: Iterable[G], at_once: int) -> Iterator[list[G]]:
    """Go through groups, some at a time, until they hold so many things together."""
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
