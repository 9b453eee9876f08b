"""Weights in files: safetensors, torch's archives of plain tensors, and folders of either in one piece or in shards.

Tensors are memory-mapped, not read: from a checkpoint of many gigabytes, only the tensors that you ask for are loaded.
Archives of torch before 1.6 cannot be mapped and are read. Only what `torch.load(weights_only=True)` allows is
unpickled: tensors in plain dictionaries.
"""

import math
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import torch
from torch import Tensor

from ireu_cli.encoders.files.arrived import nothing_in, weight_files, wrong_with
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import MOST_HEADER, ContentError, leads_inside, printable, read_json, relative_path
from ireu_cli.support.paths import as_text

ARCHIVES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
"""Endings of files that `torch.save` writes."""
SAFE = frozenset({".safetensors", ".sft"})
PLAIN = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Dtypes whose values need nothing else to be read."""
_MOST_TENSORS = 100_000
_END = object()
_MOST_STEPS = 4 * _MOST_TENSORS
_DEEPEST = 16
"""The deepest nesting of dictionaries in an archive."""
_STRETCHED = 4
"""How many values an archive's tensors may have for each value in the file: tensors can share memory.
"""
_MOST_INDEX = 1 << 25
_MOST_NAME = 512
_GLOBAL = re.compile(r"Unsupported (?:global|class).{0,40}?((?:\w+\.)+\w+)", re.DOTALL)
"""Finds the name of a class in torch's message."""


@dataclass(frozen=True)
class TensorFile(Mapping[str, Tensor]):
    """The tensors of one file by name, read on demand.

    In an archive of nested dictionaries, like PhotoMaker's, names are joined by dots: `id_encoder.vision_model…`.
    """

    path: Path
    keys_to: Mapping[str, tuple[str, ...]] = field(repr=False)
    """For each name, the keys that lead to the tensor."""
    tree: Mapping[str, Any] | None = field(default=None, repr=False)
    """An archive's dictionaries; None for safetensors."""
    opened: Any = field(default=None, repr=False, compare=False)
    """The safetensors file, opened when its names were read; None for archives."""

    def __getitem__(self, name: str) -> Tensor:
        """Map one tensor, in the dtype of the file. Do not change it in place: later callers get the same memory."""
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

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without mapping it."""
        return tuple(self[name].shape if self.tree is not None else self.opened.get_slice(name).get_shape())

    @property
    def elements(self) -> int:
        """The number of values of all tensors together."""
        return sum(math.prod(self.shape(name)) for name in self)


def dtypes_of(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """The dtypes of some tensors, such as float8_e4m3fn and float16; the dtype of most values comes first."""
    values: Counter[str] = Counter()
    for tensor in tensors:
        values[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return tuple(kind for kind, _ in values.most_common())


def open_file(path: Path) -> TensorFile:
    """Open a file of weights.

    Raises:
        ModelError: it does not exist, is damaged, or is of another kind.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "Name a file of weights")
    ending = path.suffix.lower()
    if ending in SAFE:
        # Once: its header, with hundreds of names, is not read again for every tensor.
        opened = _open_safetensors(path)
        return _sound(TensorFile(path, {name: (name,) for name in opened.keys()}, opened=opened))  # noqa: SIM118
    if ending in ARCHIVES:
        tree = _read_archive(path)
        return _sound(TensorFile(path, _leaves(tree, path), tree))
    raise ModelError(
        f"{path} does not have the ending of a file of weights",
        f"Name a .safetensors file, or one of {', '.join(sorted(ARCHIVES))}",
    )


def _sound(file: TensorFile) -> TensorFile:
    """Refuse tensor names that are not valid, and an archive whose tensors are many times larger than the file.

    Raises:
        ModelError: it has such names or tensors.
    """
    if len(file) > _MOST_TENSORS:
        raise ModelError(f"{file.path} holds {len(file)} tensors", f"Name a file of at most {_MOST_TENSORS}")
    if wrong := next((name for name in file if len(name) > _MOST_NAME or not name.isprintable()), None):
        raise ModelError(f"{file.path} holds a tensor whose name is not valid: {printable(wrong)}", _UNDAMAGED)
    if file.tree is not None:
        stretched = sum(tensor.numel() * tensor.element_size() for tensor in file.values())
        if stretched > _STRETCHED * file.path.stat().st_size + (1 << 20):
            raise ModelError(f"The tensors of {file.path} are many times larger than the file", _UNDAMAGED)
    return file


def files_of(source: Path) -> tuple[list[Path], Path | None]:
    """The files of weights in a file or a folder; for a folder in shards, all files that its index names.

    Returns:
        The files, and the index that names them.

    Raises:
        ModelError: the folder has none, or its index cannot be read or names files that are not there.
    """
    if source.is_file():
        return [source], None
    for name in weight_files():
        if (source / name).is_file():
            index = source / name
            return (shards_of(index), index) if name.endswith(".json") else ([index], None)
    why, remedy = nothing_in(source)
    raise ModelError(f"{source} {why}", remedy)


_UNDAMAGED = "Use an undamaged copy"


def _open_safetensors(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if 8 + length <= path.stat().st_size and length > MOST_HEADER:
            raise ModelError(
                f"The header of {path} has {length} bytes", f"Name a file whose header has at most {MOST_HEADER}"
            )
        with as_text(path) as name:
            return safetensors.safe_open(name, framework="pt")
    except (safetensors.SafetensorError, OSError):
        raise _unusable(path) from None


def _unusable(path: Path) -> ModelError:
    why, remedy = wrong_with(path)
    return ModelError(f"{path} {why}", remedy)


def _read_archive(path: Path) -> Mapping[str, Any]:
    if _is_packed(path):
        raise ModelError(f"{path} is a compressed archive, and torch.save does not compress", _UNDAMAGED)
    try:
        tree = _load(path, mapped=True)
    except RuntimeError:
        # Archives of torch before 1.6 cannot be mapped.
        tree = None
    if tree is None:
        tree = _load(path, mapped=False)
    if not isinstance(tree, Mapping):
        raise ModelError(f"{path} holds a {type(tree).__name__} and not a dictionary of tensors", "Save its state dict")
    return tree


def _load(path: Path, *, mapped: bool) -> Any:
    """Load an archive with torch; mapping raises RuntimeError for archives that cannot be mapped."""
    why: Exception
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError as error:
        # Damaged data can ask for absurd amounts; it is the machine's fault where not even the file finds room.
        np.empty(2 * path.stat().st_size, np.uint8)
        why = error
    except Exception as error:
        if mapped and isinstance(error, RuntimeError):
            raise
        why = error
    # Out here, what went wrong does not stand behind it: lack of memory would be told instead.
    raise _not_plain(path, why)


def _is_packed(path: Path) -> bool:
    """Whether a zip holds compressed files, which could unpack to any size; torch does not compress."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        # Torch says what is wrong with it.
        return False


def _not_plain(path: Path, error: Exception) -> ModelError:
    """The error for an archive that torch does not read without unpickling."""
    text = str(error)
    if found := _GLOBAL.search(text):
        what = f" ({printable(found[1], 80)})"
        return ModelError(
            f"{path} is not an archive of plain tensors: it holds objects that would have to be unpickled{what}",
            "Save its state dict alone, or convert it to safetensors",
        )
    why, remedy = wrong_with(path)
    return ModelError(f"{path} is not an archive of plain tensors: it {why}", remedy)


def _leaves(tree: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    """Joined names of all tensors with the keys that lead to each.

    Raises:
        ModelError: dictionaries are nested too deeply, perhaps in a circle, or are too many.
    """
    found: dict[str, tuple[str, ...]] = {}
    # Depth first, in the order of the file; a dictionary may stand in many places, so all steps are counted.
    open_branches: list[tuple[tuple[Any, ...], Iterator[tuple[Any, Any]]]] = [((), iter(tree.items()))]
    steps = 0
    while open_branches:
        keys, entries = open_branches[-1]
        key, value = next(entries, (None, _END))
        steps += 1
        if len(keys) > _DEEPEST or steps > _MOST_STEPS:
            raise ModelError(
                f"{path} is not an archive of plain tensors: its dictionaries form a circle, or are too many",
                "Save its state dict alone",
            )
        if value is _END:
            open_branches.pop()
        elif isinstance(value, Tensor):
            name = ".".join(map(str, (*keys, key)))
            if name in found:
                raise ModelError(f"{path} holds two tensors under the name {printable(name)}", _UNDAMAGED)
            found[name] = (*keys, cast(str, key))
        elif isinstance(value, Mapping):
            open_branches.append(((*keys, key), iter(value.items())))
    return found


def shard_names(index: Path) -> list[str]:
    """The file names in an index, sorted; all must be names of files beside it.

    Raises:
        ModelError: it cannot be read, or names others.
    """
    try:
        told = read_json(index, _MOST_INDEX, repeats=True)
    except (ContentError, OSError) as error:
        why = error.why if isinstance(error, ContentError) else f"cannot be read ({error.strerror})"
        raise ModelError(f"The index {index} {why}", "Fetch it again") from None
    named = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"The index {index} names no shards", "Fetch it again")
    names = sorted(set(named.values()))
    if (wrong := next((name for name in names if not _is_beside(name)), None)) is not None:
        raise ModelError(f"{index} names {printable(wrong)}, which is not beside it", "Fetch all shards")
    return names


def _is_beside(name: str) -> bool:
    try:
        return name == Path(relative_path(name)).name
    except ContentError:
        return False


def shards_of(index: Path) -> list[Path]:
    """The files that an index names. All must be beside it; links in the hub's cache count as beside it.

    Raises:
        ModelError: it cannot be read, or names others.
    """
    files = [index.parent / name for name in shard_names(index)]
    if missing := next((file for file in files if not file.is_file() or not leads_inside(index.parent, file)), None):
        raise ModelError(f"{index} names {missing.name}, which is not beside it", "Fetch all shards")
    return files
