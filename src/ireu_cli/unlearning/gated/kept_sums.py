"""Sums over retained people as plain tensors, so that they can be kept for later requests."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.manifest import canonical_json
from ireu_cli.maths.detector import FOLDS, FoldSums, PeopleSums
from ireu_cli.support.photo_table import listed_by_person
from ireu_cli.values import People

_VERSION = 1
"""Raise it when the same photos give other sums, so that old and new sums are not mixed."""
_COUNTS = ("photos", "pairs", "views")
_SUMS = ("total", "square", "within", "between_views")


def sums_name(used: People, views: Sequence[Sequence[str]], tap: str) -> str:
    """The name of sums over people: it covers their photos, the changed copies, and the averaged tap."""
    parts = (str(_VERSION), listed_by_person(used.photos), canonical_json(views), canonical_json(tap))
    return f"people-{digest_of_texts(*parts)[:32]}.safetensors"


def digest_of_texts(*texts: str) -> str:
    """As `digest_of`, of a list whose values are canonical JSON already, which takes a fraction of the time."""
    return hashlib.sha256(f"[{','.join(texts)}]".encode()).hexdigest()


def folds_tensors(sums: FoldSums) -> dict[str, Tensor]:
    """The tensors for a file."""
    parts = [*sums.folds, sums.copies]
    tensors = {f"{place}.{name}": getattr(part, name) for place, part in enumerate(parts) for name in _SUMS}
    return tensors | {"counts": torch.tensor([[getattr(part, name) for name in _COUNTS] for part in parts])}


def read_folds(tensors: dict[str, Tensor]) -> FoldSums:
    """The inverse of `folds_tensors`.

    Raises:
        KeyError: something is missing.
    """
    parts = []
    for place, counts in enumerate(tensors["counts"].tolist()):
        known = dict(zip(_COUNTS, counts, strict=True)) | {name: tensors[f"{place}.{name}"] for name in _SUMS}
        parts.append(PeopleSums(**known))
    return FoldSums(tuple(parts[:FOLDS]), parts[FOLDS])
