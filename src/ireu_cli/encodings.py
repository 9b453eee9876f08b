"""Encoding photos: cached by content, one batch read ahead, no photo encoded twice."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.params import Tap
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage

_READERS = 2
"""Photos read and swapped at the same time; decoding and blending release the interpreter."""

Progress = Callable[[int], None]
"""Called with the number of items just done."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something to encode: `key` names its content, `label` is for messages, `load` gives the picture."""

    key: str
    label: str
    load: Callable[[], RgbImage]


def encode(
    encoder: ImageEncoder,
    tap: Tap,
    items: Sequence[Item],
    cache: FeatureCache,
    batch_size: int,
    progress: Progress | None = None,
    see: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, str]:
    """Make sure the features of all items are in the cache.

    Args:
        encoder: prepares the pixels.
        tap: whose output is kept.
        items: what to encode; may be made whenever somebody looks.
        cache: where rows are kept.
        batch_size: items encoded at once.
        progress: is told of items that are done.
        see: gives the rows to keep of pixels (n, 3, side, side), where these are not the tap's output.

    Returns:
        For each item that cannot be used, its key and why, in words; the others are in the cache.
    """
    places = {item.key: place for place, item in enumerate(items)}
    todo = cache.missing(list(places))
    if progress:
        progress(len(places) - len(todo))
    bad: dict[str, str] = {}
    for keys, pixels, unusable in stream(encoder, (items[places[key]] for key in todo), batch_size):
        bad |= unusable
        if keys:
            cache.put(keys, see(pixels) if see else encoder.encode(pixels, tap))
        if progress:
            progress(len(keys) + len(unusable))
    return bad


def stream(
    encoder: ImageEncoder, items: Iterable[Item], batch_size: int
) -> Iterator[tuple[list[str], Tensor, dict[str, str]]]:
    """Read and preprocess items in batches, the next one while the caller works on this one.

    Yields:
        Keys of the usable items, their pixels (n, 3, side, side), and for each other item its key and why.
    """
    left = iter(items)
    reader, loaders = ThreadPoolExecutor(1), ThreadPoolExecutor(_READERS)

    def begin() -> Future[tuple[list[str], Tensor, dict[str, str]]] | None:
        batch = list(islice(left, batch_size))
        return reader.submit(_load, encoder, batch, loaders) if batch else None

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


def chunks(cache: FeatureCache, keys: Sequence[str], size: int = 64) -> Iterator[tuple[list[str], Tensor]]:
    """Go through cached features in pieces, so that memory does not grow with their number."""
    for start in range(0, len(keys), size):
        piece = list(keys[start : start + size])
        yield piece, cache.get(piece)


def refuse_bad(bad: dict[str, str], labels: dict[str, str], flag: str) -> None:
    """Raise one error that lists unusable photos.

    Args:
        bad: key and reason, as `encode` returns them.
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


def _load(encoder: ImageEncoder, batch: Sequence[Item], loaders: Executor) -> tuple[list[str], Tensor, dict[str, str]]:
    # Each picture becomes pixels as soon as it is read: whole pictures of a batch may take gigabytes.
    outcomes = list(zip(batch, loaders.map(lambda item: _pixels(encoder, item), batch), strict=True))
    keys = [item.key for item, outcome in outcomes if not isinstance(outcome, BadPhotoError)]
    pixels = [outcome for _, outcome in outcomes if not isinstance(outcome, BadPhotoError)]
    bad = {item.key: str(outcome) for item, outcome in outcomes if isinstance(outcome, BadPhotoError)}
    return keys, torch.cat(pixels) if pixels else encoder.pixels([]), bad


def _pixels(encoder: ImageEncoder, item: Item) -> Tensor | BadPhotoError:
    try:
        return encoder.pixels([item.load()])
    except BadPhotoError as error:
        return error
