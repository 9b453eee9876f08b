"""Embeddings in files of others: a safetensors file, such as ReActor's face models, or one array of numpy.

The file is held in memory, and new vectors are written into their places. So every other byte stays as it is.
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.files.tensor_file import PLAIN, SAFE, open_file
from ireu_cli.errors import ArtifactError
from ireu_cli.store.packing import KINDS
from ireu_cli.support.bounded import MOST_HEADER, ContentError, printable, read_bounded, read_json

_MOST = 1 << 33
_FLOATS = {KINDS[kind]: kind for kind in PLAIN}
_DAMAGED = "Name an undamaged file of embeddings"


@dataclass(frozen=True)
class Part:
    """Embeddings of a file: `vectors`, float (n, d), and a function that puts new rows where `rows`, bool (n,), says.

    The new rows have the dtype of `vectors`.
    """

    vectors: Tensor
    put: Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Stored:
    """A file of embeddings: all of its bytes, which `put` of the parts changes, and the parts."""

    data: bytearray
    parts: tuple[Part, ...]


def open_stored(path: Path, width: int) -> Stored:
    """Read a file of embeddings.

    In a safetensors file, every tensor of floating-point numbers whose last dimension is the width counts. In a `.npy`
    file it is the one array, of one or two dimensions. Nothing is unpickled.

    Args:
        path: the file.
        width: how many numbers an embedding has.

    Raises:
        ArtifactError: it does not exist, is of another kind, damaged or too large, or holds no embedding of that width
            or a value that is not a finite number.
        ModelError: it is a damaged safetensors file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", "Name a file of embeddings with --embeddings")
    ending = path.suffix.lower()
    if ending not in {*SAFE, ".npy"}:
        raise ArtifactError(
            f"{path} does not have the ending of a file of embeddings", "Name a .safetensors or a .npy file"
        )
    try:
        data = bytearray(read_bounded(path, _MOST))
    except ContentError as error:
        raise ArtifactError(f"{path} {error.why}", _DAMAGED) from None
    parts = _of_numpy(data, path, width) if ending == ".npy" else _of_safetensors(data, path, width)
    if not any(part.vectors.numel() for part in parts):
        raise ArtifactError(
            f"{path} holds no embedding of {width} numbers, which the delta is for",
            "Name embeddings that the delta's encoder made",
        )
    if not all(bool(torch.isfinite(part.vectors).all()) for part in parts):
        raise ArtifactError(f"{path} holds an embedding with a value that is not a finite number", _DAMAGED)
    return Stored(data, parts)


def _of_safetensors(data: bytearray, path: Path, width: int) -> tuple[Part, ...]:
    # It checks the header and all offsets.
    open_file(path)
    start = 8 + int.from_bytes(data[:8], "little")
    header = read_json(bytes(data[8:start]), MOST_HEADER, name=path.name, repeats=True)
    parts = []
    for name, entry in sorted(header.items()):
        if name == "__metadata__" or entry["dtype"] not in _FLOATS or entry["shape"][-1:] != [width]:
            continue
        count, place = math.prod(entry["shape"]), start + entry["data_offsets"][0]
        if not count:
            continue
        kept = torch.frombuffer(data, dtype=_FLOATS[entry["dtype"]], count=count, offset=place).view(-1, width)
        parts.append(Part(kept.clone(), kept.__setitem__))
    return tuple(parts)


def _of_numpy(data: bytearray, path: Path, width: int) -> tuple[Part, ...]:
    shape, is_fortran, kind, place = _header_of(data, path)
    if kind.kind != "f" or kind.itemsize > 8 or len(shape) not in {1, 2} or shape[-1] != width:
        return ()
    if math.prod(shape) * kind.itemsize != len(data) - place:
        raise ArtifactError(f"{path} does not hold as many numbers as it states", _DAMAGED)
    kept = np.frombuffer(data, dtype=kind, offset=place).reshape(shape, order="F" if is_fortran else "C")
    rows = kept if kept.ndim == 2 else kept[None]
    vectors = torch.from_numpy(np.ascontiguousarray(rows.astype(kind.newbyteorder("="))))

    def put(where: Tensor, new: Tensor) -> None:
        rows[where.numpy()] = new.numpy()

    return (Part(vectors, put),)


def _header_of(data: bytearray, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """The shape, order and dtype that a file of numpy states, and where its values begin."""
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            # That the file is of an old Python.
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, is_fortran, kind = readers[version](file)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the header is read as Python, whose errors are of many kinds
        what = printable(type(error).__name__)
        raise ArtifactError(f"{path} is not an array of numpy, or is damaged ({what})", _DAMAGED) from None
    return shape, is_fortran, kind, file.tell()
