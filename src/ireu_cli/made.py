"""Things that are made whenever somebody looks, where there may be too many to hold."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

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

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        """One thing, or some, which are made one by one as well."""
        if isinstance(place, slice):
            return Made(self._source[place], self._make)
        return self._make(self._source[place])
