"""Encoded photos, cached by content: encoder, tap, reading of the photo, photo bytes.

A cache file holds one encoded batch, its name is the digest of its bytes, and it is checked when read; a damaged or
half-written file is a miss, never an error.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ireu_cli.paths import as_text
from ireu_cli.store.files import write_bytes

_DIGEST = "sha256"


class FeatureCache:
    """Features of one encoder at one tap, as rows of float32 tensors."""

    def __init__(self, folder: Path) -> None:
        """Open the cache; only headers are read."""
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._checked: set[Path] = set()
        for path in sorted(folder.glob("*.safetensors")):
            self._index(path)

    def __contains__(self, key: str) -> bool:
        """Whether the features of a photo are there."""
        return key in self._files

    def put(self, keys: Sequence[str], features: Tensor) -> None:
        """Keep one batch: `features` (len(keys), …), any floating dtype."""
        rows = {key: row.contiguous() for key, row in zip(keys, features.float().cpu(), strict=True)}
        data = safetensors.torch.save(rows)
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        write_bytes(path, data, durable=False)
        self._checked.add(path)
        self._files.update(dict.fromkeys(rows, path))

    def get(self, keys: Sequence[str]) -> Tensor:
        """Return the features of photos that are all in the cache: float32 (len(keys), …)."""
        rows: dict[str, Tensor] = {}
        for path in dict.fromkeys(self._files[key] for key in keys):
            with as_text(path) as name, safetensors.safe_open(name, framework="pt") as file:
                rows |= {key: file.get_tensor(key) for key in keys if self._files[key] == path}
        return torch.stack([rows[key] for key in keys])

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys that are not there, in order, each once; files are checked before they are relied on."""
        for path in {self._files[key] for key in keys if key in self._files} - self._checked:
            if _is_whole(path):
                self._checked.add(path)
            else:
                self._files = {key: other for key, other in self._files.items() if other != path}
        return [key for key in dict.fromkeys(keys) if key not in self._files]

    def _index(self, path: Path) -> None:
        try:
            with as_text(path) as name, safetensors.safe_open(name, framework="pt") as file:
                self._files.update(dict.fromkeys(file.keys(), path))
        except safetensors.SafetensorError:
            path.unlink(missing_ok=True)
        except OSError:
            # That it cannot be opened now says nothing of what is in it.
            return


def _is_whole(path: Path) -> bool:
    """Whether a cache file has the bytes that its name tells; one that has others is taken away."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if hashlib.sha256(data).hexdigest() == path.stem:
        return True
    path.unlink(missing_ok=True)
    return False


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Keep tensors that could be computed again, with a digest of them."""
    write_bytes(path, safetensors.torch.save(tensors, {_DIGEST: _digest(tensors)}), durable=False)


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """What `write_tensors` wrote; None where it is not there, or damaged."""
    try:
        data = path.read_bytes()
        tensors = dict(safetensors.torch.load(data))
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (OSError, ValueError, safetensors.SafetensorError):
        return None
    return tensors if header.get("__metadata__", {}).get(_DIGEST) == _digest(tensors) else None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
