"""What identifies weights: a digest of names, shapes and values, whichever files and dtypes hold them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

_PROBE = 4096
"""Values that are looked at before all of them are."""


class Print(NamedTuple):
    """SHA-256 (hex) of one tensor, and whether all its values are finite."""

    digest: str
    is_finite: bool


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the names, sorted, and the prints of tensors.

    Independent of the file layout: the same weights in one file or in many, in half or in single precision, are the
    same encoder; buffers that old files carry are dropped on loading. Where a few tensors change, they alone have to
    be read again.
    """
    return fingerprint_by(state, state.__getitem__)


def fingerprint_by(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """The same of tensors that are read when they are needed, a few at a time."""
    return fingerprint_from(prints_by(names, read))


def fingerprint_from(prints: Mapping[str, Print]) -> str:
    """The same of tensors that were read."""
    digest = hashlib.sha256()
    for name in sorted(prints):
        digest.update(f"{name} {prints[name].digest}\n".encode())
    return digest.hexdigest()


def prints_by(names: Iterable[str], read: Callable[[str], Tensor]) -> dict[str, Print]:
    """The prints of tensors, as many at a time as torch uses threads."""
    names = list(names)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return dict(zip(names, threads.map(lambda name: print_of(read(name)), names), strict=True))


def print_of(tensor: Tensor) -> Print:
    """The print of one tensor: over its shape, and over its values in the shortest dtype that holds them all.

    That is float16, bfloat16 or float32, whichever dtype they come in; what none of them holds is rounded to float32.
    """
    values = tensor.detach().cpu()
    if not values.is_floating_point() or values.dtype.itemsize > torch.float32.itemsize:
        values = values.float()
    short = next((kind for kind in (torch.float16, torch.bfloat16) if _holds(kind, values)), torch.float32)
    shortened = values.to(short).contiguous()
    digest = hashlib.sha256(f"{tuple(values.shape)} {short}".encode())
    if shortened.numel():
        # Views of no dimensions cannot be taken apart into bytes.
        digest.update(shortened.flatten().view(torch.uint8).numpy().data)
    # A sum is several times as fast, and finite only if all of them are.
    is_finite = bool(values.sum(dtype=torch.float32).isfinite()) or bool(values.isfinite().all())
    return Print(digest.hexdigest(), is_finite)


def _holds(kind: torch.dtype, values: Tensor) -> bool:
    """Whether a dtype holds all values as they are."""
    if values.dtype == kind:
        return True
    flat = values.flatten()
    return all(bool((part.to(kind).to(values.dtype) == part).all()) for part in (flat[:_PROBE], flat))
