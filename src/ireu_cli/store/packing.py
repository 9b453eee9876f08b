"""Build a safetensors file in memory, in small pieces.

`safetensors.torch.save` does it in one call that holds the interpreter lock. With some gigabytes, no signal is handled
for many seconds. The bytes are the same.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

KINDS = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of dtypes, in the order of its own writer (huggingface/safetensors, `tensor.rs`).

The dtypes with the widest alignment come first."""
_RANKS = {kind: rank for rank, kind in enumerate(KINDS)}
_ALIGNED = 8
_PIECE = 1 << 22
"""The number of bytes that are copied at once."""


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytearray:
    """The bytes of a safetensors file.

    Args:
        tensors: dense tensors of any shape, of whole numbers, floats of at least 16 bits, or bool.
        metadata: texts for the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    order = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name))
    end = 0
    for name in order:
        first, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": KINDS[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [first, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    data = bytearray()
    data += struct.pack("<Q", len(text)) + text
    for name in order:
        flat = tensors[name].detach().cpu().contiguous().flatten()
        if flat.numel():
            values = flat.view(torch.uint8).numpy().data
            for start in range(0, len(values), _PIECE):
                data += values[start : start + _PIECE]
    return data
