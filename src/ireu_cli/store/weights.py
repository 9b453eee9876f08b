"""Write files of weights without holding them in memory: a copy with some tensors replaced, or tensors one by one.

The safetensors format (huggingface/safetensors, README): eight bytes with the length of a header, little-endian; the
header, a JSON object with each tensor's dtype, shape, begin and end; then the values.
"""

import hashlib
import json
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ArtifactError
from ireu_cli.store.packing import KINDS
from ireu_cli.support.bounded import MOST_HEADER, read_json

_DTYPES = KINDS | {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
_ALIGNED = 8
_PIECE = 1 << 22
"""The number of bytes that are read at once."""
_SENT = 1 << 26
"""The number of bytes that the system copies at once."""


def copy_with(
    source: Path,
    out: Path,
    changed: Mapping[str, Callable[[], Tensor]],
    advance: Callable[[int], None] = lambda _count: None,
) -> None:
    """Copy a safetensors file, replacing the values of some tensors; everything else keeps every bit.

    The copy may not yet be on the disk; `write_folder` waits for that.

    Args:
        source: the file.
        out: the path of the copy.
        changed: for each name, a function that gives the new values, in the dtype and the shape of the file.
        advance: called with the number of bytes just copied.
    """
    header, start = _header_of(source)
    _copy(source, out, advance)
    with out.open("r+b") as copy:
        for name, read in changed.items():
            copy.seek(start + header[name]["data_offsets"][0])
            copy.write(_fitting(name, read(), header))


def digest_with(source: Path, changed: Mapping[str, Callable[[], Tensor]], is_stopped: Callable[[], bool]) -> str:
    """SHA-256 (hex) of what `copy_with` writes, computed from the original; one new tensor is held at a time.

    Args:
        source: the file.
        changed: as for `copy_with`.
        is_stopped: called before each piece.

    Raises:
        CancelledError: it was stopped.
    """
    header, start = _header_of(source)
    digest, done = hashlib.sha256(), 0
    with (
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as whole,
    ):

        def update(first: int, last: int) -> None:
            for piece in _pieces(whole, first, last):
                if is_stopped():
                    raise CancelledError
                digest.update(piece)

        for name in sorted(changed, key=lambda key: tuple(header[key]["data_offsets"])):
            first, last = (start + offset for offset in header[name]["data_offsets"])
            if first < done:
                raise ValueError("the places of tensors overlap")
            update(done, first)
            digest.update(_fitting(name, changed[name](), header))
            done = last
        update(done, len(whole))
    return digest.hexdigest()


def _header_of(source: Path) -> tuple[dict[str, Any], int]:
    """A file's header, and the offset of its values."""
    with source.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = read_json(file.read(min(length, MOST_HEADER + 1)), MOST_HEADER, name=source.name, repeats=True)
        return header, 8 + length


def _pieces(data: memoryview, first: int, last: int) -> Iterator[memoryview]:
    for start in range(first, last, _PIECE):
        with data[start : min(start + _PIECE, last)] as piece:
            yield piece


def _copy(source: Path, out: Path, advance: Callable[[int], None]) -> None:
    """Copy a file in pieces, within the system, which is faster than in Python."""
    done = 0
    with source.open("rb") as read, out.open("wb") as written:
        try:
            while sent := os.sendfile(written.fileno(), read.fileno(), done, _SENT):
                done += sent
                advance(sent)
        except OSError:
            # Not every system or file system supports this; if the first piece was copied, the disk is what fails.
            if done:
                raise
            shutil.copyfile(source, out)
            advance(out.stat().st_size)


def _fitting(name: str, tensor: Tensor, header: Mapping[str, Any]) -> bytes | memoryview:
    """The bytes of a tensor that replaces one in a file."""
    entry, data = header[name], _bytes(tensor)
    first, last = entry["data_offsets"]
    if (_code(tensor.dtype), list(tensor.shape)) != (entry["dtype"], entry["shape"]) or len(data) != last - first:
        raise ValueError(f"{name} is {entry['dtype']} {entry['shape']} in its file")
    return data


def copy_tree_with(
    tree: Mapping[str, Any], keys_to: Mapping[str, Sequence[str]], out: Path, changed: Mapping[str, Tensor]
) -> None:
    """Write nested dictionaries of tensors like `torch.save`, with some tensors replaced; these are held in memory.

    Args:
        tree: the dictionaries, whose tensors may be memory-mapped; their keys keep their order.
        keys_to: for each name, the keys that lead to its tensor.
        out: the file to write.
        changed: new values by name.
    """
    copy = _copied(tree)
    for name, tensor in changed.items():
        *path, last = keys_to[name]
        place = copy
        for key in path:
            place = place[key]
        place[last] = tensor
    torch.save(copy, out)


def write_tensors_one_by_one(
    out: Path,
    tensors: Mapping[str, Callable[[], Tensor]],
    like: Mapping[str, Tensor],
    advance: Callable[[int], None] = lambda _count: None,
) -> None:
    """Write a safetensors file of any size, holding one tensor at a time.

    Args:
        out: the file to write.
        tensors: for each name, a function that gives its values.
        like: for each name, a tensor of that dtype and shape, such as one on the meta device.
        advance: called with the number of bytes just written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Larger elements first, as the format's own writer does, so that every tensor is aligned.
    order = sorted(tensors, key=lambda name: (-like[name].element_size(), name))
    for name in order:
        size = like[name].numel() * like[name].element_size()
        header[name] = {
            "dtype": _code(like[name].dtype),
            "shape": list(like[name].shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with out.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            advance(file.write(_bytes(tensors[name]())))


def _code(dtype: torch.dtype) -> str:
    if dtype not in _DTYPES:
        raise ArtifactError(f"safetensors files cannot hold tensors of {dtype}", "Leave out the dtype and the format")
    return _DTYPES[dtype]


def _bytes(tensor: Tensor) -> bytes | memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
