"""The one loop through which pictures are encoded, or looked at, and kept: each once, by its content, read ahead.

An `Item` says which picture, a `Look` what is taken from it: features at a tap, what enters a block, what judges see.
Items are plain values. Whoever has a reader of their own, in this process or in another one, can load them. Photos that
cannot be used are refused in one error, or told and skipped, as `data.bad_photos` says.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.read import PhotoReader
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache, Keys
from ireu_cli.values import RgbImage

P = TypeVar("P")
_READERS = 2
"""The number of photos read and swapped at the same time; decoding and blending release the interpreter lock."""


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


@dataclass(frozen=True)
class Encodings:
    """The loop for everything that is encoded, or looked at, and kept or summed.

    Attributes:
        session: says how many pictures a batch has, shows how far the work is and takes its time.
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
        bad: dict[str, str] = {}
        with self.session.timed(part), self.session.talk.progress(label, len(items)) as advance:
            places = {item.key: place for place, item in enumerate(items)}
            unknown = [cache.missing(list(places)) for cache in caches]
            todo = unknown[0] if len(unknown) == 1 else _joined(places, unknown)
            advance(len(places) - len(todo), "")
            for batch in stream((items[places[key]] for key in todo), self._load(look), self._size):
                bad |= batch.unusable
                if batch.keys:
                    _keep(caches, batch.keys, look.rows(batch.prepared))
                advance(len(batch), "")
        return bad

    @contextlib.contextmanager
    def batches(
        self, look: Look[P], items: Sequence[Item], label: str, part: str = "encode"
    ) -> Iterator[Iterator[Batch[P]]]:
        """Go through all items, for a caller that keeps something other than a row of each; see `fill`.

        The context ends reading, and the progress bar, also if the caller stops before the last batch.
        """
        with (
            self.session.timed(part),
            self.session.talk.progress(label, len(items)) as advance,
            contextlib.closing(stream(items, self._load(look), self._size)) as found,
        ):
            yield _told(found, advance)

    @property
    def _size(self) -> int:
        return self.session.config.run.batch_size

    def _load(self, look: Look[P]) -> Callable[[Item], P]:
        return lambda item: look.prepare(item.load(self.reader))


def _told(found: Iterable[Batch[P]], advance: Callable[[int, str], None]) -> Iterator[Batch[P]]:
    for batch in found:
        yield batch
        advance(len(batch), "")


def stream(items: Iterable[Item], load: Callable[[Item], P], batch_size: int) -> Generator[Batch[P], None, None]:
    """Load items in batches, the next one while the caller works on this one."""
    left = iter(items)
    reader, loaders = ThreadPoolExecutor(1), ThreadPoolExecutor(_READERS)

    def begin() -> Future[Batch[P]] | None:
        batch = list(islice(left, batch_size))
        return reader.submit(_batch, batch, load, loaders) if batch else None

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


def chunks(cache: FeatureCache, keys: Keys, size: int = 64) -> Iterator[tuple[Keys, Tensor]]:
    """Iterate over cached features in pieces, so that memory does not grow with their number."""
    for start in range(0, len(keys), size):
        piece = keys[start : start + size]
        yield piece, cache.get(piece)


def refuse_or_note(session: Session, bad: dict[str, str], labels: dict[str, str], flag: str, what: str) -> None:
    """Refuse unusable photos, or say that they are skipped, as `data.bad_photos` says.

    Args:
        session: the run.
        bad: for each, its key and why.
        labels: by key, what messages call it.
        flag: the flag that named the folder.
        what: what the photos are, for messages.

    Raises:
        PhotoError: there are some and it is `error`.
    """
    if session.config.data.bad_photos == "error":
        refuse_bad(bad, labels, flag)
    elif bad:
        reasons = "; ".join(sorted(set(bad.values())))
        session.talk.note(f"{what}: {len(bad)} unusable photos skipped ({reasons})")
        if session.talk.verbose:
            for key, reason in bad.items():
                session.talk.note(f"{what}: {labels[key]} {reason}")


def no_usable_photo() -> PhotoError:
    """The error for a target without usable photos."""
    return PhotoError("A target has no usable photo", "Replace the unusable photos of that person")


def refuse_bad(bad: dict[str, str], labels: dict[str, str], flag: str) -> None:
    """Raise one error that lists unusable photos.

    Args:
        bad: key and reason, as `Encodings.fill` returns them.
        labels: key and label of every item.
        flag: the flag that named the folder.

    Raises:
        PhotoError: when there is any.
    """
    if not bad:
        return
    listed = [f"{labels[key]} {reason}" for key, reason in bad.items()]
    more = f", and {len(listed) - 5} more" if len(listed) > 5 else ""
    sentence = "; ".join(listed[:5]) + more
    raise PhotoError(
        f"{flag}: {sentence}", "Replace or remove these files, or go on without them with --bad-photos skip"
    )


def _joined(places: dict[str, int], unknown: Sequence[Sequence[str]]) -> list[str]:
    """Keys that any cache lacks, in the order of their items."""
    lacking = {key for keys in unknown for key in keys}
    return [key for key in places if key in lacking]


def _keep(caches: Sequence[FeatureCache], keys: Sequence[str], rows: Sequence[Tensor]) -> None:
    """Put rows where they are not there yet."""
    for cache, found in zip(caches, rows, strict=True):
        absent = [place for place, key in enumerate(keys) if key not in cache]
        if len(absent) == len(keys):
            cache.put(keys, found)
        elif absent:
            cache.put([keys[place] for place in absent], found[absent])


def _batch(items: Sequence[Item], load: Callable[[Item], P], loaders: Executor) -> Batch[P]:
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
