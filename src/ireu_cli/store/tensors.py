"""Tensors in the run folder that could be computed again, with a digest of them, so that damage is a miss."""

import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ireu_cli.store.files import write_bytes
from ireu_cli.support.bounded import ContentError, read_json

_DIGEST = "sha256"
LONGEST_HEADER = 1 << 27
"""The most bytes of a header in the run folder, which may name very many rows."""


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Keep tensors that could be computed again, with a digest of them."""
    write_bytes(path, safetensors.torch.save(tensors, {_DIGEST: _digest(tensors)}), durable=False)


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors that `write_tensors` wrote; None if the file is missing or damaged."""
    try:
        data = path.read_bytes()
        tensors = dict(safetensors.torch.load(data))
        told = read_json(data[8 : 8 + int.from_bytes(data[:8], "little")], LONGEST_HEADER).get("__metadata__") or {}
    except (OSError, ContentError, ValueError, safetensors.SafetensorError):
        return None
    return tensors if told.get(_DIGEST) == _digest(tensors) else None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
