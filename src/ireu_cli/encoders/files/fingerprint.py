"""What identifies weights: a digest of names, shapes and values that does not depend on files or dtypes."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_READERS = 4
"""The most tensors that are read at the same time: each may be held in memory."""
_PIECE = 1 << 20
"""The number of values that are read together; the first piece is short, and decides for most tensors."""
_PROBE = 4096
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000}
"""The bits of infinity as a whole number: finite values lie below, NaN above.

The formats are those of IEEE 754; bfloat16 is the upper half of float32."""

Bits = npt.NDArray[Any]


class Print(NamedTuple):
    """SHA-256 (hex) of one tensor, and whether all its values are finite."""

    digest: str
    is_finite: bool


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the names, sorted, and the prints of tensors.

    It does not depend on the file layout: the same weights in one file or in many, in half or in single precision, are
    the same encoder; buffers in old files are dropped on loading. If a few tensors change, only those have to be read
    again.
    """
    return fingerprint_by(state, state.__getitem__)


def fingerprint_by(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """The same for tensors that are read when they are needed, a few at a time."""
    return fingerprint_from(prints_by(names, read))


def fingerprint_from(prints: Mapping[str, Print]) -> str:
    """The same for tensors that were read."""
    digest = hashlib.sha256()
    for name in sorted(prints):
        digest.update(f"{name} {prints[name].digest}\n".encode())
    return digest.hexdigest()


def prints_by(
    names: Iterable[str], read: Callable[[str], Tensor], is_stopped: Callable[[], bool] = lambda: False
) -> dict[str, Print]:
    """The prints of tensors, a few at a time.

    Args:
        names: names of the tensors.
        read: gives a tensor by its name.
        is_stopped: called before each tensor.

    Raises:
        CancelledError: it was stopped.
    """

    def one(name: str) -> Print:
        if is_stopped():
            raise CancelledError
        return print_of(read(name))

    names = list(names)
    with ThreadPoolExecutor(min(_READERS, torch.get_num_threads())) as threads:
        return dict(zip(names, threads.map(one, names), strict=True))


def print_of(tensor: Tensor) -> Print:
    """The print of one tensor: a digest of its shape and of its values in the shortest dtype that holds them all.

    That dtype is float16, bfloat16 or float32, whatever dtype the file has; values that fit none are rounded to
    float32.
    """
    values = tensor.detach().cpu()
    if values.dtype not in _INFINITY:
        values = values.float()
    flat = values.contiguous().flatten()
    short = next((kind for kind in (torch.float16, torch.bfloat16) if _holds(kind, flat)), torch.float32)
    digest = hashlib.sha256(f"{tuple(values.shape)} {short}".encode())
    for piece in _pieces(flat):
        digest.update(_bits(piece.to(short)).data)
    return Print(digest.hexdigest(), _is_finite(flat))


def _holds(kind: torch.dtype, flat: Tensor) -> bool:
    """Whether a dtype holds all values exactly."""
    return flat.dtype == kind or all(bool((part.to(kind).to(flat.dtype) == part).all()) for part in _pieces(flat))


def _is_finite(flat: Tensor) -> bool:
    # In numpy, which starts no threads of its own: several tensors are looked at side by side.
    infinity = _INFINITY[flat.dtype]
    return all(_largest(bits) < infinity for bits in map(_bits, _pieces(flat)))


def _largest(bits: Bits) -> int:
    """The bits of the value farthest from zero; reading twice is faster than removing signs from a copy."""
    sign = 1 << (8 * bits.itemsize - 1)
    negative, positive = int(bits.max()), int(bits.view(np.int16 if bits.itemsize == 2 else np.int32).max())
    return max(positive, negative - sign)


def _pieces(flat: Tensor) -> Iterator[Tensor]:
    if len(flat):
        yield flat[:_PROBE]
    for start in range(_PROBE, len(flat), _PIECE):
        yield flat[start : start + _PIECE]


def _bits(piece: Tensor) -> Bits:
    """Values as unsigned whole numbers of the same size."""
    signed: Bits = piece.view(torch.int16 if piece.dtype.itemsize == 2 else torch.int32).numpy()
    return signed.view(np.uint16 if piece.dtype.itemsize == 2 else np.uint32)
