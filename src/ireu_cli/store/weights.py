"""Files of weights, written without holding them: a copy in which some tensors are replaced, or tensors one by one.

The safetensors format (huggingface/safetensors, README): eight bytes with the length of a header, little-endian; the
header, a JSON object that gives of each tensor its dtype, its shape and where it begins and ends; then the values.
"""

import json
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ArtifactError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
}
_ALIGNED = 8


def copy_with(source: Path, out: Path, changed: Mapping[str, Callable[[], Tensor]]) -> None:
    """Copy a safetensors file, replacing the values of some tensors; everything else keeps every bit.

    Args:
        source: the file.
        out: where the copy goes.
        changed: of each name, what gives the new values, in the dtype and the shape of the file.
    """
    with source.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    shutil.copyfile(source, out)
    with out.open("r+b") as file:
        for name, read in changed.items():
            tensor = read()
            entry, data = header[name], _bytes(tensor)
            first, last = entry["data_offsets"]
            if (_code(tensor.dtype), list(tensor.shape)) != (entry["dtype"], entry["shape"]):
                raise ValueError(f"{name} is {entry['dtype']} {entry['shape']} in {source}")
            file.seek(8 + length + first)
            file.write(data)
            if len(data) != last - first:
                raise ValueError(f"{name} does not fit its place in {source}")


def copy_tree_with(
    tree: Mapping[str, Any], keys_to: Mapping[str, Sequence[str]], out: Path, changed: Mapping[str, Tensor]
) -> None:
    """Write nested dictionaries of tensors as `torch.save` does, replacing some tensors, which are held meanwhile.

    Args:
        tree: the dictionaries, whose tensors may be mapped; their keys keep their order.
        keys_to: of each name, the keys that lead to its tensor.
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
    out: Path, tensors: Mapping[str, Callable[[], Tensor]], like: Mapping[str, Tensor]
) -> None:
    """Write a safetensors file of any size, holding one tensor at a time.

    Args:
        out: the file to write.
        tensors: of each name, what gives its values.
        like: of each name, a tensor of that dtype and shape, such as one on the meta device.
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
            file.write(_bytes(tensors[name]()))


def _code(dtype: torch.dtype) -> str:
    if dtype not in _DTYPES:
        raise ArtifactError(f"safetensors files have no tensors of {dtype}", "Leave out the dtype and the format")
    return _DTYPES[dtype]


def _bytes(tensor: Tensor) -> bytes | memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
