"""Photos of people as columns: there may be very many, and an object is made only for one that is looked at."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

DIGEST = 32
"""The bytes of a SHA-256."""
_LISTED = 2 * DIGEST + len('"",')
"""The characters of a digest in a list, with the comma after it."""
_AT_ONCE = 4096
"""The number of people whose photos are made together."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo file of one person. `sha256` is over the file's bytes; the path never leaves the process.

    There may be very many, and a `Path` takes three times the memory of a text.
    """

    person: int
    index: int
    file: str
    sha256: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return Path(self.file)

    @property
    def label(self) -> str:
        """The photo's name in messages: only numbers, in the order of the sorted names."""
        return f"photo {self.index + 1} of person {self.person + 1}"


class PhotoColumns(NamedTuple):
    """A row for each of n photos.

    `persons` int64 (n,) and `indices` int64 (n,) number a photo's person and the photo among the person's files.
    `digests` uint8 (n, 32) are the photos' SHA-256, and `keyed` uint8 (n, 32) the run folder's keyed digests of them,
    or (n, 0) if they were not asked for.
    """

    files: Sequence[str]
    persons: NDArray[np.int64]
    indices: NDArray[np.int64]
    digests: NDArray[np.uint8]
    keyed: NDArray[np.uint8]


class PhotoTable(Sequence[tuple[Photo, ...]]):
    """People in their order, each with at least one photo. Tables of the same folder share their columns."""

    def __init__(self, columns: PhotoColumns, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Take `rows` (m,) of the columns, person by person; `starts` (people + 1,) says where each person begins."""
        self._columns, self._rows, self._starts = columns, rows, starts

    @classmethod
    def of(cls, columns: PhotoColumns) -> "PhotoTable":
        """Everybody in some columns, in which a person's photos follow each other."""
        return cls(columns, np.arange(len(columns.files)), _starts(columns.persons))

    @property
    def total(self) -> int:
        """The number of photos."""
        return len(self._rows)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of photos of each person: int64 (people,)."""
        return np.diff(self._starts)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the people, from 0: int64 (people,)."""
        return self._columns.persons[self._rows[self._starts[:-1]]]

    @property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of all photos: uint8 (total, 32)."""
        return self._columns.digests[self._rows]

    @property
    def keyed(self) -> NDArray[np.uint8]:
        """The run folder's keyed digests: uint8 (total, 32), or (total, 0) if they were not asked for."""
        return self._columns.keyed[self._rows]

    @property
    def flat(self) -> "Flat":
        """All photos, person by person."""
        return Flat(self)

    def made(self, first: int, end: int) -> list[Photo]:
        """Some of all photos, person by person."""
        rows = self._rows[first:end]
        files, persons, indices, digests, _ = self._columns
        texts = digests[rows].tobytes().hex("-", DIGEST).split("-")
        parts = zip(rows.tolist(), persons[rows].tolist(), indices[rows].tolist(), texts, strict=False)
        return [Photo(person, index, files[row], sha256) for row, person, index, sha256 in parts]

    def keep(self, kept: NDArray[np.bool_]) -> "PhotoTable":
        """Keep some photos, bool (total,). People keep their numbers; people without a photo are dropped."""
        if kept.all():
            return self
        rows = self._rows[kept]
        return PhotoTable(self._columns, rows, _starts(self._columns.persons[rows]))

    def some(self, people: NDArray[np.bool_]) -> "PhotoTable":
        """Keep some people, bool (people,)."""
        return self.keep(np.repeat(people, self.sizes))

    def first(self, most: int) -> "PhotoTable":
        """Keep at most a number of photos of each person, the first ones."""
        places = np.arange(self.total) - np.repeat(self._starts[:-1], self.sizes)
        return self.keep(places < most)

    def __eq__(self, other: object) -> bool:
        """Whether the other one has the same photos of the same people."""
        return isinstance(other, PhotoTable) and list(self) == list(other)

    def __hash__(self) -> int:
        """The same for equal ones."""
        return hash(self.digests.tobytes())

    def __len__(self) -> int:
        """The number of people."""
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[tuple[Photo, ...]]:
        """Everybody's photos, a person at a time."""
        for start in range(0, len(self), _AT_ONCE):
            starts = self._starts[start : start + _AT_ONCE + 1].tolist()
            photos = self.made(starts[0], starts[-1])
            for first, end in itertools.pairwise(starts):
                yield tuple(photos[first - starts[0] : end - starts[0]])

    @overload
    def __getitem__(self, place: int) -> tuple[Photo, ...]: ...

    @overload
    def __getitem__(self, place: slice) -> "PhotoTable": ...

    def __getitem__(self, place: int | slice) -> "tuple[Photo, ...] | PhotoTable":
        """One person's photos, or the table of some people, who must follow each other."""
        if isinstance(place, slice):
            chosen = np.zeros(len(self), np.bool_)
            chosen[place] = True
            return self.some(chosen)
        place = range(len(self))[place]
        return tuple(self.made(int(self._starts[place]), int(self._starts[place + 1])))


class Flat(Sequence[Photo]):
    """All photos of a table, made on every access."""

    def __init__(self, table: PhotoTable) -> None:
        """Take the table."""
        self._table = table

    def __len__(self) -> int:
        """The number of photos."""
        return self._table.total

    def __iter__(self) -> Iterator[Photo]:
        """All photos, one after the other."""
        for start in range(0, len(self), _AT_ONCE):
            yield from self._table.made(start, start + _AT_ONCE)

    @overload
    def __getitem__(self, place: int) -> Photo: ...

    @overload
    def __getitem__(self, place: slice) -> list[Photo]: ...

    def __getitem__(self, place: int | slice) -> Photo | list[Photo]:
        """One photo, or some."""
        if isinstance(place, slice):
            first, end, step = place.indices(len(self))
            return self._table.made(first, max(first, end))[::step] if step > 0 else list(self)[place]
        place = range(len(self))[place]
        return self._table.made(place, place + 1)[0]


def accepted(table: PhotoTable, keep: Callable[[Photo], Any]) -> NDArray[np.bool_]:
    """Which photos a function accepts: bool (total,)."""
    return np.fromiter((bool(keep(photo)) for photo in table.flat), np.bool_, table.total)


def same_as(digests: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which digests (n, 32) are among others (m, 32): bool (n,)."""
    found = np.isin(_begins(digests), _begins(others))
    if found.any():
        known = set(keys_of(others))
        found[found] = [key in known for key in keys_of(digests[found])]
    return found


def _begins(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first eight bytes of digests: (n,)."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]


def keys_of(digests: NDArray[np.uint8]) -> list[bytes]:
    """Each of some digests, uint8 (n, size), as bytes."""
    size = digests.shape[1]
    found: list[bytes] = np.ascontiguousarray(digests).view(f"V{size}").ravel().tolist() if digests.size else []
    return found


def listed(digests: NDArray[np.uint8]) -> str:
    """Digests, uint8 (n, 32), as a list of hex texts in canonical JSON."""
    texts = digests.tobytes().hex("-", DIGEST).replace("-", '","')
    return f'["{texts}"]' if texts else "[]"


def listed_by_person(photos: PhotoTable) -> str:
    """For each person the list of digests, all in a list: hex texts in canonical JSON."""
    # Each photo takes as many characters, so that a person's photos are a part of the whole text.
    whole, ends = listed(photos.digests), photos.sizes.cumsum().tolist()
    parts = [f"[{whole[1 + _LISTED * start : _LISTED * end]}]" for start, end in zip([0, *ends], ends, strict=False)]
    return f"[{','.join(parts)}]"


def _starts(persons: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each person begins, and the end, in the ascending numbers of the photos' people."""
    if not len(persons):
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(persons)) + 1, [len(persons)]])
