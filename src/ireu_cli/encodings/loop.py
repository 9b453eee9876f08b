"""The one loop through which pictures are encoded, or looked at, and kept: each once, by its content, read ahead.

An `Item` says which picture, a `Look` what is taken from it: features at a tap, what enters a block, what judges see.
Items are plain values. Whoever has a reader of their own, in this process or in another one, can load them. Photos that
cannot be used are refused in one error, or told and skipped, as `data.bad_photos` says.
"""

import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.rows import digest_of_keys, joined, keep
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.sharding.executor import Alone, Executor, Outcome, Positions, Shard, Stage
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import Json, RgbImage

P = TypeVar("P")
_LOOKS = (0.1, 0.4, 1.5, 0.0)
"""Seconds after each look for rows that others have made."""


@dataclass(frozen=True, slots=True)
class Item(ABC):
    """A picture to look at, as a value that can be sent to another process.

    Attributes:
        key: names its content.
        label: what messages call it.
    """

    key: str
    label: str

    @abstractmethod
    def load(self, reader: PhotoReader, /) -> RgbImage:
        """Read or make the picture.

        Raises:
            BadPhotoError: it cannot be used.
        """


class Look(Protocol[P]):
    """What is taken from pictures."""

    def prepare(self, image: RgbImage) -> P:
        """Make one picture ready and let go of it; several threads may call.

        Raises:
            BadPhotoError: it cannot be used.
        """

    def rows(self, prepared: Sequence[P]) -> Sequence[Tensor]:
        """Look at a batch: for each cache that keeps something, its rows (n, …), any floating dtype."""


class EncoderLook(ABC):
    """A look through an encoder: pictures become its pixels."""

    def __init__(self, encoder: ImageEncoder) -> None:
        """Args: the encoder that prepares the pixels."""
        self.encoder = encoder

    def prepare(self, image: RgbImage) -> Tensor:
        """Pixels of one picture: float32 (1, 3, side, side)."""
        return self.encoder.pixels([image])

    def rows(self, prepared: Sequence[Tensor]) -> tuple[Tensor]:
        """See `Look`."""
        return (self.see(torch.cat(list(prepared))),)

    @abstractmethod
    def see(self, pixels: Tensor) -> Tensor:
        """What is taken of pixels (n, 3, side, side): (n, …)."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[P]):
    """Some items: the keys of those that can be used, what was made ready of each, and for others their key and why."""

    keys: list[str]
    prepared: list[P]
    unusable: dict[str, str]

    def __len__(self) -> int:
        """How many items, usable or not."""
        return len(self.keys) + len(self.unusable)


class Gathering(Protocol[P]):
    """What is gathered from the pictures of one shard."""

    def add(self, batch: Batch[P]) -> None:
        """Take a batch in; some of its items may be unusable."""

    def tensors(self) -> dict[str, Tensor]:
        """What came of all its batches."""


@dataclass(frozen=True)
class Fold(Generic[P]):
    """Something that is gathered from pictures shard by shard, and put together in the order of the shards.

    Attributes:
        name: everything that decides the outcome besides the pictures, as `digest_of` takes it.
        begin: begins a shard, given the position of its first picture.
        collect: takes what came of the next shard.
        head: the number of pictures that the first shard lacks to be whole, if another run has begun it; else 0.
    """

    name: Json
    begin: Callable[[int], Gathering[P]]
    collect: Callable[[dict[str, Tensor]], None]
    head: int = 0


@dataclass(frozen=True)
class Encodings:
    """The loop for everything that is encoded, or looked at, and kept or summed.

    Attributes:
        session: says how many pictures a batch has, who does the work, shows how far it is and takes its time.
        reader: reads photos.
    """

    session: Session
    reader: PhotoReader

    def fill(
        self,
        look: Look[P],
        items: Sequence[Item],
        caches: Sequence[FeatureCache],
        label: str,
        part: str = "encode",
    ) -> dict[str, str]:
        """Make sure that what a look takes of all items is in its caches.

        Args:
            look: what is taken.
            items: of which pictures; may be made whenever somebody looks.
            caches: where rows are kept, one for each tensor that the look gives.
            label: of the progress bar.
            part: whose time it is, in the record.

        Returns:
            For each item that cannot be used, its key and why, in words; the others are in the caches.
        """
        places = {item.key: place for place, item in enumerate(items)}
        unknown = [cache.missing(list(places)) for cache in caches]
        todo = unknown[0] if len(unknown) == 1 else joined(places, unknown)
        fold = Fold[P]([cache.name for cache in caches], lambda _first: _Keeping(look, caches), lambda _tensors: None)
        wanted = [places[key] for key in todo]
        bad, is_shared = self._go_through(self.session.executor, look, items, wanted, fold, label, part)
        if is_shared and (lost := self._lost(places, caches, bad)):
            # Somebody removed or damaged what others had made.
            bad |= self._go_through(Alone(), look, items, lost, fold, label, part)[0]
        return bad

    def _lost(self, places: dict[str, int], caches: Sequence[FeatureCache], bad: dict[str, str]) -> list[int]:
        """Positions of items that caches lack although others have done them."""
        wanted = [key for key in places if key not in bad]
        lost: list[str] = []
        for pause in _LOOKS:
            for cache in caches:
                cache.refresh()
            lost = joined(places, [cache.missing(wanted) for cache in caches])
            if not lost:
                break
            # File systems of several machines may show a file some time after it was written.
            time.sleep(pause)
        return [places[key] for key in lost]

    def gather(
        self, look: Look[P], items: Sequence[Item], fold: Fold[P], label: str, part: str = "encode"
    ) -> dict[str, str]:
        """Go through all items, for a caller that keeps something other than a row of each; see `fill`."""
        return self._go_through(self.session.executor, look, items, range(len(items)), fold, label, part)[0]

    def _go_through(
        self,
        executor: Executor,
        look: Look[P],
        items: Sequence[Item],
        todo: Sequence[int],
        fold: Fold[P],
        label: str,
        part: str,
    ) -> tuple[dict[str, str], bool]:
        """Returns the unusable items, and whether others may have done some of the work."""
        run, bad = self.session.config.run, dict[str, str]()

        def name() -> str:
            return digest_of([fold.name, digest_of_keys(item.key for item in items)])

        def collect(outcome: Outcome) -> None:
            bad.update(outcome.unusable)
            fold.collect(outcome.tensors)

        def stands(outcome: Outcome, positions: Positions) -> bool:
            return not outcome.unusable or self._stands(outcome, [items[place] for place in positions.tolist()])

        with self.session.timed(part), self.session.talk.progress(label, len(items)) as advance:
            advance(len(items) - len(todo), "")

            def compute(positions: Positions, shards: Iterator[Shard]) -> Iterator[tuple[Shard, Outcome]]:
                ends: deque[tuple[Shard, bool]] = deque()
                taken = _batches(items, positions, shards, run.batch_size, ends)
                load = self._load(look)
                with contextlib.closing(stream(taken, load, run.photos_at_once)) as batches:
                    yield from _shards(batches, ends, positions, fold.begin, advance)

            size = run.batch_size * run.shard_batches
            places = np.asarray(todo, np.int64)
            stage = Stage(name, places, size, fold.head, stands=stands)
            is_shared = executor.go_through(stage, compute, collect, lambda count: advance(count, ""))
        return bad, is_shared

    def _load(self, look: Look[P]) -> Callable[[Item], P]:
        return lambda item: look.prepare(item.load(self.reader))

    def _stands(self, outcome: Outcome, items: Sequence[Item]) -> bool:
        """Whether what could not be used of a shard's items still cannot be."""
        for item in (item for item in items if item.key in outcome.unusable):
            try:
                item.load(self.reader)
            except BadPhotoError:
                continue
            return False
        return True


@dataclass(frozen=True)
class _Keeping(Generic[P]):
    """Rows of a look, which go into its caches."""

    look: Look[P]
    caches: Sequence[FeatureCache]

    def add(self, batch: Batch[P]) -> None:
        """See `Gathering`."""
        if batch.keys:
            keep(self.caches, batch.keys, self.look.rows(batch.prepared))

    def tensors(self) -> dict[str, Tensor]:
        """See `Gathering`: everything is in the caches."""
        return {}


def _batches(
    items: Sequence[Item],
    positions: Positions,
    shards: Iterator[Shard],
    size: int,
    ends: "deque[tuple[Shard, bool]]",
) -> Iterator[list[Item]]:
    """The batches of shards; for each, its shard and whether it is the last one of it go to `ends`."""
    for shard in shards:
        for first in range(shard.first, shard.end, size):
            end = min(first + size, shard.end)
            ends.append((shard, end == shard.end))
            yield [items[place] for place in positions[first:end].tolist()]


def _shards(
    batches: Iterator[Batch[P]],
    ends: "deque[tuple[Shard, bool]]",
    positions: Positions,
    begin: Callable[[int], Gathering[P]],
    advance: Callable[[int, str], None],
) -> Iterator[tuple[Shard, Outcome]]:
    """What comes of the shards that batches belong to."""
    gathering: Gathering[P] | None = None
    bad: dict[str, str] = {}
    for batch in batches:
        shard, is_last = ends.popleft()
        if gathering is None:
            gathering, bad = begin(int(positions[shard.first])), {}
        gathering.add(batch)
        bad |= batch.unusable
        advance(len(batch), "")
        if is_last:
            yield shard, Outcome(bad, gathering.tensors())
            gathering = None


def stream(batches: Iterable[list[Item]], load: Callable[[Item], P], at_once: int) -> Generator[Batch[P], None, None]:
    """Load batches of items, so many items at once, and the next batch while the caller works on this one."""
    left = iter(batches)
    reader, loaders = ThreadPoolExecutor(1), ThreadPoolExecutor(at_once)

    def begin() -> Future[Batch[P]] | None:
        batch = next(left, None)
        return None if batch is None else reader.submit(_batch, batch, load, loaders)

    try:
        ahead = begin()
        while ahead is not None:
            ready = ahead.result()
            ahead = begin()
            yield ready
    finally:
        # Whoever stops here does not wait for the photos of a whole batch that nobody wants any more.
        loaders.shutdown(wait=False, cancel_futures=True)
        reader.shutdown(cancel_futures=True)
        loaders.shutdown()


def _batch(items: Sequence[Item], load: Callable[[Item], P], loaders: Pool) -> Batch[P]:
    # Each picture is made ready as soon as it is read: whole pictures of a batch may take gigabytes.
    def usable(item: Item) -> P | BadPhotoError:
        try:
            return load(item)
        except BadPhotoError as error:
            return error

    found: Batch[P] = Batch([], [], {})
    for item, outcome in zip(items, loaders.map(usable, items), strict=True):
        if isinstance(outcome, BadPhotoError):
            found.unusable[item.key] = str(outcome)
        else:
            found.keys.append(item.key)
            found.prepared.append(outcome)
    return found
