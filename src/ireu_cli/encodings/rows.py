"""Rows of several caches, and their keys."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from ireu_cli.store.features import FeatureCache, Keys


def chunks(cache: FeatureCache, keys: Keys, size: int = 64) -> Iterator[tuple[Keys, Tensor]]:
    """Iterate over cached features in pieces, so that memory does not grow with their number."""
    for start in range(0, len(keys), size):
        piece = keys[start : start + size]
        yield piece, cache.get(piece)


def digest_of_keys(keys: Iterable[str]) -> str:
    """A digest (hex) of keys in their order; there may be very many."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(f"{len(key)} {key}".encode())
    return digest.hexdigest()


def joined(places: dict[str, int], unknown: Sequence[Sequence[str]]) -> list[str]:
    """Keys that any cache lacks, in the order of their items."""
    lacking = {key for keys in unknown for key in keys}
    return [key for key in places if key in lacking]


def keep(caches: Sequence[FeatureCache], keys: Sequence[str], rows: Sequence[Tensor]) -> None:
    """Put rows where they are not there yet."""
    for cache, found in zip(caches, rows, strict=True):
        absent = [place for place, key in enumerate(keys) if key not in cache]
        if len(absent) == len(keys):
            cache.put(keys, found)
        elif absent:
            cache.put([keys[place] for place in absent], found[absent])
