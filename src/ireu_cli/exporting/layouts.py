"""The files of an export: a copy of the source's files with the edit in it, or the encoder alone in another layout."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encoders.files.checkpoint import Checkpoint, open_checkpoint
from ireu_cli.encoders.files.fingerprint import Print, prints_by
from ireu_cli.encoders.files.tensor_file import TensorFile
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.layouts.layout import Layout, Piece
from ireu_cli.layouts.table import AUTO, layouts_of
from ireu_cli.params import Dtype
from ireu_cli.store.files import write_bytes
from ireu_cli.store.weights import copy_tree_with, copy_with, digest_with, write_tensors_one_by_one
from ireu_cli.support.bounded import leads_inside, printable
from ireu_cli.values import DTYPES, WEIGHTS_AT_ONCE, Json, WeightDelta


@dataclass(frozen=True)
class Edit:
    """What is written: the source, the change, and the layout and dtype to write it in."""

    source: Checkpoint
    delta: WeightDelta
    layout: Layout
    dtype: Dtype | Literal["auto"]
    """`auto` keeps the dtype of each tensor."""
    groups: tuple[str, ...]

    def tensor(self, name: str) -> Tensor:
        """One tensor of the edited encoder, as it is written."""
        own = self.source[name]
        kind = written_dtype(self.dtype, own)
        if name not in self._edited:
            return own.to(kind)
        new = torch.empty(own.shape, dtype=kind)
        parts = (torch.split(each.flatten(), WEIGHTS_AT_ONCE) for each in (new, own, self.delta.tensors[name]))
        for place, base, change in zip(*parts, strict=True):
            place.copy_(base.float() + change)
        return new

    def tensor_there(self, file: TensorFile, key: str, names: Collection[str]) -> Tensor:
        """One tensor of a file as it is written, with the edited tensors of the encoder that lie in it.

        Args:
            file: a file of the source.
            key: the tensor's name there.
            names: the encoder's names of what lies in it.
        """
        pieces = [(name, self.source.pieces.get(name, Piece(name))) for name in names]
        if len(pieces) == 1 and pieces[0][1].is_whole:
            return self.tensor(pieces[0][0])
        own = file[key]
        new = torch.empty(own.shape, dtype=written_dtype(self.dtype, own)).copy_(own)
        for name, piece in pieces:
            if name in self._edited:
                piece.of(new).copy_(self.tensor(name))
        return new

    def touches(self, name: str) -> bool:
        """Whether the written tensor differs from the one in the source."""
        if self.dtype == "auto" or name in self._edited:
            return name in self._edited
        own = self.source[name]
        return written_dtype(self.dtype, own) != own.dtype

    @cached_property
    def _edited(self) -> frozenset[str]:
        return frozenset(name for name, change in self.delta.tensors.items() if bool(change.any()))


def layout_for(wanted: str, source: Checkpoint) -> Layout:
    """The layout to write a transformer in.

    Args:
        wanted: `export.format`.
        source: the files of the encoder.

    Raises:
        ConfigError: that layout holds more than the encoder, and the source does not have the rest.
    """
    own = source.layout
    if wanted in {AUTO, own.name}:
        return own
    alone = {layout.name: layout for layout in layouts_of(source.anatomy.family) if layout.part_of is None}
    if wanted not in alone:
        raise ConfigError(
            f"This encoder comes in a {own.name}, which cannot be exported as {wanted}",
            f"Use --format {', '.join(sorted({own.name, *alone}))}, or leave it out",
        )
    return alone[wanted]


@dataclass(frozen=True)
class Written:
    """The path that loads an export, and the files in it that are copies except for the edit.

    `is_bare`: the encoder has no projection. The config.json, which says so, is written after the weights.
    """

    place: Path
    copies: Collection[Path]
    is_bare: bool = False

    def holds(self, edited: Mapping[str, Print], new: Collection[str]) -> bool:
        """Read the export back and say whether it has these prints; of copied files, only the new prints are compared.

        Raises:
            ModelError: it cannot be read.
        """
        found = open_checkpoint(self.place, is_bare=self.is_bare)
        copied = all(part.path in self.copies for part in found.parts)
        names = [name for name in edited if name in new] if copied else list(edited)
        return set(edited) <= set(found) and all(
            one == edited[name] for name, one in prints_by(names, found.__getitem__).items()
        )


def write_weights(
    edit: Edit, encoder: HasBlocks, folder: Path, advance: Callable[[int], None] = lambda _count: None
) -> Written:
    """Write the edited encoder's weights into an empty folder; `advance` is called with the bytes just written.

    Files of the source's own layout are copied, and only edited tensors are written into the copy.
    """
    place, is_bare = _place_in(edit, folder), edit.source.is_bare
    place.mkdir(parents=True, exist_ok=True)
    files = edit.source.parts
    if _keeps_files(edit):
        for file in files:
            _write_file(edit, file, place / file.path.name, advance)
        if edit.source.index is not None:
            _copy(edit.source.index, place)
        loaded = place if edit.layout.in_folder else place / files[0].path.name
        return Written(loaded, [*_copies(edit, folder)], is_bare)
    new = place / edit.layout.file_of(edit.groups)
    names = {edit.layout.name_there(name): name for name in encoder.model.state_dict() if name in edit.source}
    like = {there: _like(edit, edit.source[name]) for there, name in names.items()}
    write_tensors_one_by_one(new, {there: partial(edit.tensor, name) for there, name in names.items()}, like, advance)
    return Written(place if edit.layout.in_folder else new, (), is_bare)


def copied_digests(edit: Edit, folder: Path, is_stopped: Callable[[], bool]) -> dict[Path, str]:
    """SHA-256 (hex) of the files that `write_weights` copies except for the edit; this reads their originals.

    Raises:
        CancelledError: it was stopped.
    """
    return {
        out: digest_with(file.path, _changed_in(edit, file), is_stopped) for out, file in _copies(edit, folder).items()
    }


def write_beside(edit: Edit, encoder: HasBlocks, folder: Path, told: Mapping[str, Json]) -> None:
    """Write what lies beside the weights: adapters, and settings that say in words what was done."""
    place = _place_in(edit, folder)
    if edit.layout.in_folder or not _keeps_files(edit):
        _write_settings(edit, encoder, place, told)
    else:
        for path in (edit.source.config, edit.source.config.with_name("preprocessor_config.json")):
            if path.exists():
                _copy(path, place)
    _copy_adapters(edit, folder)


def _place_in(edit: Edit, folder: Path) -> Path:
    return folder / edit.layout.inside


def _keeps_files(edit: Edit) -> bool:
    """Whether the source's files are copied. Archives in a folder are not: transformers prefers safetensors."""
    mapped = all(file.tree is None for file in edit.source.parts)
    return edit.layout == edit.source.layout and (mapped or not edit.layout.in_folder)


def _copies(edit: Edit, folder: Path) -> dict[Path, TensorFile]:
    """The files that are copied except for the edit: where each goes, and its original."""
    place = _place_in(edit, folder)
    files = edit.source.parts if _keeps_files(edit) else ()
    return {place / file.path.name: file for file in files if _is_copied(edit, file)}


def _is_copied(edit: Edit, file: TensorFile) -> bool:
    """Whether a file keeps all bytes outside the edit. An archive does not, nor does a file that changes its dtype."""
    return file.tree is None and all(
        written_dtype(edit.dtype, file[key]) == file[key].dtype for key in _changed_in(edit, file)
    )


def _names_in(edit: Edit, file: TensorFile) -> dict[str, list[str]]:
    """The encoder's tensors in a file: each key there, with the encoder's own names for what lies in it."""
    found: dict[str, list[str]] = {}
    for name, (own, key) in edit.source.places.items():
        if own.path == file.path:
            found.setdefault(key, []).append(name)
    return found


def _changed_in(edit: Edit, file: TensorFile) -> dict[str, Callable[[], Tensor]]:
    """The tensors of a file that change: each key there, with a function that gives the new values."""
    return {
        key: partial(edit.tensor_there, file, key, names)
        for key, names in _names_in(edit, file).items()
        if any(map(edit.touches, names))
    }


def _write_file(edit: Edit, file: TensorFile, out: Path, advance: Callable[[int], None]) -> None:
    """Write one file of the source's layout."""
    names, changed = _names_in(edit, file), _changed_in(edit, file)
    if file.tree is not None:
        copy_tree_with(file.tree, file.keys_to, out, {key: read() for key, read in changed.items()})
    elif _is_copied(edit, file):
        copy_with(file.path, out, changed, advance)
    else:
        like = {key: _like(edit, file[key]) if key in names else file[key].to("meta") for key in file}
        readers = {
            key: partial(edit.tensor_there, file, key, names[key]) if key in names else partial(file.__getitem__, key)
            for key in file
        }
        write_tensors_one_by_one(out, readers, like, advance)


def _like(edit: Edit, tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=written_dtype(edit.dtype, tensor), device="meta")


def _write_settings(edit: Edit, encoder: HasBlocks, place: Path, told: Mapping[str, Json]) -> None:
    settings: dict[str, Any] = encoder.model.config.to_dict()
    settings |= {
        "architectures": [edit.source.anatomy.model_class],
        "dtype": served_dtype(edit.dtype, edit.source),
        "ireu": dict(told),
    }
    settings.pop("_name_or_path", None)
    write_bytes(place / "config.json", _json(settings))
    own = edit.source.config.with_name("preprocessor_config.json")
    if own.is_file():
        _copy(own, place)
    else:
        # The class with the Pillow backend writes its own name, which other versions do not know.
        written = encoder.processor.to_dict() | {"image_processor_type": edit.source.anatomy.processor_class}
        write_bytes(place / own.name, _json(written))


def _copy_adapters(edit: Edit, folder: Path) -> None:
    """What the layout's loader reads beside the encoder's folder, where the source lies beside it too."""
    source, inside = edit.source.source, Path(edit.layout.inside)
    if source.name == inside.name:
        for path in sorted(path for pattern in edit.layout.beside for path in source.parent.glob(pattern)):
            if path.is_file():
                _copy(path, folder / inside.parent)


def _copy(path: Path, place: Path) -> None:
    """Copy a file that lies beside the weights. You may publish an export, so no file from elsewhere enters it.

    Raises:
        ModelError: it is a link that leads out of its folder.
    """
    if not leads_inside(path.parent, path):
        raise ModelError(
            f"{printable(path.name)} beside the encoder is a link that leads out of its folder",
            "Put a copy there instead of the link",
        )
    shutil.copyfile(path, place / path.name)


def written_dtype(wanted: Dtype | Literal["auto"], tensor: Tensor) -> torch.dtype:
    """The dtype that a tensor of the encoder is written in."""
    return DTYPES.get(wanted, tensor.dtype) if tensor.is_floating_point() else tensor.dtype


def served_dtype(wanted: Dtype | Literal["auto"], source: Checkpoint) -> Dtype:
    """The dtype that the encoder is loaded in: the wanted one, or the one that most values in the file have.

    Weights stored in eight bits are computed in another dtype: that of the other weights, or single precision.
    """
    if wanted != "auto":
        return wanted
    names: tuple[Dtype, ...] = get_args(Dtype)
    return next((name for kind in _stored(source) for name in names if name == kind), "float32")


def stored_dtype(wanted: Dtype | Literal["auto"], source: Checkpoint) -> str:
    """The dtypes that the encoder's weights are written in, as words; the dtype of most values comes first."""
    return " and ".join(_stored(source)) if wanted == "auto" else wanted


def _stored(source: Checkpoint) -> tuple[str, ...]:
    return source.dtypes(name for name in source if source[name].is_floating_point())


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=_dtype_name) + "\n").encode()


def _dtype_name(value: object) -> str:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else str(value)
