"""Sums over retained people as plain tensors, so that they can be kept for later requests."""

import torch
from torch import Tensor

from ireu_cli.maths.detector import FOLDS, FoldSums, PeopleSums

SUMS_VERSION = 1
"""Raise it when the same photos give other sums, so that old and new sums are not mixed."""
_COUNTS = ("photos", "pairs", "views")
_SUMS = ("total", "square", "within", "between_views")


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
