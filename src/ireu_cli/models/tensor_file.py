"""Weights in files: safetensors, torch's archives of plain tensors, and folders of either in one piece or in shards.

Tensors are mapped, not read: a checkpoint of many gigabytes costs what is asked of it; archives of torch before 1.6
cannot be mapped, and are read. Nothing is unpickled but what
`torch.load(weights_only=True)` admits, tensors in plain dictionaries.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ireu_cli.errors import ModelError
from ireu_cli.paths import as_text

ARCHIVES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
"""Endings of what `torch.save` writes."""
SAFE = frozenset({".safetensors", ".sft"})
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What transformers looks for in a folder, in this order; the index files name the shards."""


@dataclass(frozen=True)
class TensorFile(Mapping[str, Tensor]):
    """The tensors of one file by name, read when they are asked for.

    In an archive of nested dictionaries, as PhotoMaker's, names are joined by dots: `id_encoder.vision_model…`.
    """

    path: Path
    keys_to: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Of each name, the keys that lead to the tensor."""
    tree: Mapping[str, Any] | None = field(default=None, repr=False)
    """An archive's dictionaries; None for safetensors."""
    opened: Any = field(default=None, repr=False, compare=False)
    """A safetensors file, opened where its names were read; None for archives."""

    def __getitem__(self, name: str) -> Tensor:
        """Map one tensor, in the dtype of the file; whoever changes it in place changes it for all who ask later."""
        keys = self.keys_to[name]
        if self.tree is not None:
            leaf: Any = self.tree
            for key in keys:
                leaf = leaf[key]
            return leaf  # type: ignore[no-any-return]
        found: Tensor = self.opened.get_tensor(name)
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor, without mapping it."""
        return name in self.keys_to

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the file."""
        return iter(self.keys_to)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self.keys_to)


def open_file(path: Path) -> TensorFile:
    """Open a file of weights.

    Raises:
        ModelError: not there, damaged, or of another kind.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "Name a file of weights")
    ending = path.suffix.lower()
    if ending in SAFE:
        # Once: its header, with hundreds of names, is not read again for every tensor.
        opened = _open_safetensors(path)
        return TensorFile(path, {name: (name,) for name in opened.keys()}, opened=opened)  # noqa: SIM118 - no mapping
    if ending in ARCHIVES:
        tree = _read_archive(path)
        try:
            return TensorFile(path, _leaves(tree, ""), tree)
        except RecursionError:
            raise _unusable(path, "dictionaries in a circle") from None
    raise ModelError(
        f"The kind of {path} is not known by its ending",
        f"Name a .safetensors file, or one of {', '.join(sorted(ARCHIVES))}",
    )


def files_of(source: Path) -> tuple[list[Path], Path | None]:
    """The files of weights that a file or a folder stands for; of a folder in shards, all that its index names.

    Returns:
        The files, and the index that names them.

    Raises:
        ModelError: the folder has none, or its index cannot be read or names files that are not there.
    """
    if source.is_file():
        return [source], None
    for name in WHOLE:
        if (source / name).is_file():
            index = source / name
            return (_shards(index), index) if name.endswith(".json") else ([index], None)
    raise ModelError(f"{source} holds no weights", f"It needs one of {', '.join(WHOLE)}")


def _open_safetensors(path: Path) -> Any:
    try:
        with as_text(path) as name:
            return safetensors.safe_open(name, framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(
            f"The encoder {path} is not a safetensors file ({type(error).__name__})", "Name an undamaged copy"
        ) from None


def _read_archive(path: Path) -> Mapping[str, Any]:
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Archives of torch before 1.6 cannot be mapped.
        tree = _read_old_archive(path)
    except Exception as error:  # noqa: BLE001 - unpickler, zip reader and torch each raise their own kinds
        raise _unusable(path, type(error).__name__) from None
    if not isinstance(tree, Mapping):
        raise _unusable(path, type(tree).__name__)
    return tree


def _read_old_archive(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - see above
        raise _unusable(path, type(error).__name__) from None


def _unusable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not an archive of plain tensors ({why})", "Name an undamaged copy, or convert it to safetensors"
    )


def _leaves(tree: Mapping[str, Any], prefix: str) -> dict[str, tuple[str, ...]]:
    """Joined names of all tensors with the keys that lead to each."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            found[name] = (key,)
        elif isinstance(value, Mapping):
            found |= {inner: (key, *keys) for inner, keys in _leaves(value, f"{name}.").items()}
    return found


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [index.parent / str(name) for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"The index {index} cannot be read ({type(error).__name__})", "Repair it") from None
    if missing := [file.name for file in files if not file.is_file() or file.parent != index.parent]:
        raise ModelError(f"{index} names {missing[0]}, which is not beside it", "Fetch all shards")
    return files
