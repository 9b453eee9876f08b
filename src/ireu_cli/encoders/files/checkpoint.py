"""Where the encoder lies in the files that people ship it in: alone, in a folder, or inside a generator's checkpoint.

Which layouts there are says `layouts.table`. A layout is told from the tensors, never from the name of the file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encoders.eva import tower as eva
from ireu_cli.encoders.files.sizes import PATCHES, PROJECTION
from ireu_cli.encoders.files.tensor_file import PLAIN, TensorFile, dtypes_of, files_of, open_file
from ireu_cli.encoders.reach import BARE, EVA, SIGLIP, TRANSFORMER, Anatomy
from ireu_cli.encoders.towers import bare, siglip, tower
from ireu_cli.errors import ForeignEncoderError, ModelError
from ireu_cli.layouts.layout import CLIP, Layout, Piece
from ireu_cli.layouts.table import layouts_of, plain_layout
from ireu_cli.support.bounded import printable
from ireu_cli.support.stamps import Stamp, stamp_of

_PARTS = ("vision_model.", "visual_projection.")
WITH_PROJECTION = (
    "Name a CLIPVisionModelWithProjection, a whole CLIP model, or the folder of a CLIPVisionModel with its config.json"
)
"""What to do where a projection is missing and nothing says that there is none."""
_OPEN_CLIP = "transformer.resblocks.0.attn.in_proj_weight"
_EIGHT_BITS = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
"""Dtypes whose values need nothing else to be read if no scales lie beside them."""
_EXCEPT = re.compile(r"\.position_ids$")
_Place = tuple[TensorFile, str]
"""A file, and how a tensor is called there."""


@dataclass(frozen=True)
class Checkpoint(Mapping[str, Tensor]):
    """An encoder's weights in files.

    `places` maps each tensor's name in `CLIPVisionModelWithProjection`, `BareTower`, `SiglipTower` or `EvaTower` to its
    file and its name there. `stamp` records the state of the files before they were opened.
    """

    layout: Layout
    source: Path
    parts: tuple[TensorFile, ...]
    """All files of weights, including those without tensors of the encoder."""
    index: Path | None
    """The index that names them, if they are shards."""
    places: Mapping[str, _Place]
    stamp: tuple[Stamp, ...]
    pieces: Mapping[str, Piece] = field(default_factory=dict)
    """The tensors, by their names in the encoder, that a file has in another form."""

    def __getitem__(self, name: str) -> Tensor:
        """Map one tensor, in the dtype of its file; one that is turned there is copied."""
        file, key = self.places[name]
        return self.pieces[name].of(file[key]).contiguous() if name in self.pieces else file[key]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor, without mapping it."""
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        """The tensors' names, as the encoder has them."""
        return iter(self.places)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self.places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, without mapping it."""
        file, key = self.places[name]
        shape = file.shape(key)
        if name not in self.pieces:
            return shape
        return tuple(self.pieces[name].of(torch.empty(shape, device="meta")).shape)

    def dtypes(self, names: Iterable[str]) -> tuple[str, ...]:
        """The dtypes of some tensors, such as float8_e4m3fn and float16; the dtype of most values comes first."""
        return dtypes_of(map(self.__getitem__, names))

    def refuse_quantised(self, names: Iterable[str]) -> None:
        """Refuse weights whose values mean nothing without other tensors beside them.

        Args:
            names: names of the encoder's weights.

        Raises:
            ModelError: they are whole numbers, have fewer than eight bits, or have scales or a low-rank part beside
                them.
        """
        own = set(names)
        modules = {name.rpartition(".")[0] for name in own}
        for name in self:
            parts = name.split(".")
            above = {".".join(parts[:count]) for count in range(1, len(parts))}
            if name not in own and not _EXCEPT.search(name) and any(f"{one}.weight" in own for one in above & modules):
                raise ModelError(
                    f"The weights of {self.source} are incomplete without another tensor: {printable(name)}",
                    "Name a copy of the encoder with plain, merged weights of 16 or 32 bits",
                )
        for name in sorted(own):
            if (kind := self[name].dtype) not in PLAIN | _EIGHT_BITS:
                raise ModelError(
                    f"The encoder {self.source} holds {name} in {str(kind).removeprefix('torch.')}",
                    "Name a copy of the encoder with plain weights of 16 or 32 bits",
                )

    def has_changed(self) -> bool:
        """Whether a file of weights was written to or replaced since."""
        return _stamp(part.path for part in self.parts) != self.stamp

    @property
    def anatomy(self) -> Anatomy:
        """Which kind of vision transformer it is."""
        if f"vision_model.{siglip.MARKS[0]}" in self.places:
            return SIGLIP
        return next((kind for kind in (BARE, EVA) if kind.family in self.layout.holds), TRANSFORMER)

    @property
    def is_bare(self) -> bool:
        """Whether it is CLIP without projection."""
        return self.anatomy is BARE

    @property
    def is_eva(self) -> bool:
        """Whether it is EVA02-CLIP's kind of vision transformer."""
        return self.anatomy is EVA

    @property
    def is_siglip(self) -> bool:
        """Whether it is SigLIP's kind of vision transformer, and not CLIP's."""
        return self.anatomy is SIGLIP

    @property
    def config(self) -> Path:
        """The folder where a config.json would be."""
        return (self.source if self.source.is_dir() else self.source.parent) / "config.json"


def open_checkpoint(source: Path, *, is_bare: bool = False) -> Checkpoint:
    """Find the encoder in a file or a folder.

    Args:
        source: the file or the folder.
        is_bare: it is known to be CLIP without projection, whatever its config.json says.

    Raises:
        ModelError: it does not exist, is damaged, or has no vision transformer.
        ForeignEncoderError: it is SigLIP without its pooling head.
    """
    return encoder_in(open_whole(source), is_bare=is_bare)


def open_whole(source: Path) -> Checkpoint:
    """All tensors of a file or a folder, of any model, under their names there.

    Raises:
        ModelError: it does not exist, or it is damaged.
    """
    paths, index = files_of(source)
    # First: what is put in a file's place while it is opened has another one.
    stamp = _stamp(paths)
    files = tuple(open_file(path) for path in paths)
    layout = plain_layout(CLIP, folder=source.is_dir())
    return Checkpoint(layout, source, files, index, {name: (file, name) for file in files for name in file}, stamp)


def encoder_in(whole: Checkpoint, *, is_bare: bool = False) -> Checkpoint:
    """Find the encoder among all tensors; `is_bare` as for `open_checkpoint`.

    Raises:
        ModelError: there is no vision transformer of CLIP, SigLIP or EVA02-CLIP.
        ForeignEncoderError: there is SigLIP without its pooling head.
    """
    found = _siglip_in(whole) or _eva_in(whole)
    if found is None and siglip.lacks_head(whole.places):
        raise ForeignEncoderError(
            f"{whole.source} holds SigLIP without its pooling head", "Name the whole vision transformer, as published"
        )
    if (found := found or _bare_in(whole, is_bare) or _clip_in(whole)) is not None:
        return found
    raise _nothing_known(whole)


def _siglip_in(whole: Checkpoint) -> Checkpoint | None:
    for layout, places, _ in _ways_to_read(whole, SIGLIP):
        if (prefix := tower.prefix_in(places, siglip.MARKS)) is not None:
            return replace(whole, layout=layout, places=_parts(places, prefix, siglip.PARTS, "vision_model."))
    return None


def _eva_in(whole: Checkpoint) -> Checkpoint | None:
    """The encoder under any prefix: training wraps the published names in `module.`, and the tower has none alone.

    Raises:
        ModelError: it lies in several files.
    """
    if (prefix := eva.prefix_in(whole.places)) is None:
        return None
    if len(whole.parts) > 1:
        raise ModelError(
            "EVA02-CLIP is read from one file, and this folder holds it in several",
            "Name the one file that the generator loads, EVA02_CLIP_L_336_psz14_s6B.pt",
        )
    places = {name: place for name, place in _parts(whole.places, prefix, ("",)).items() if not eva.is_left_out(name)}
    return replace(whole, layout=layouts_of(EVA.family)[0], places=places)


def _bare_in(whole: Checkpoint, is_told: bool) -> Checkpoint | None:
    """The encoder, where it has no projection, and we are told, or its config.json says, that it has none."""
    if PROJECTION in whole.places or not (is_told or bare.says_bare(whole.config)):
        return None
    for layout, places, _ in _ways_to_read(whole, BARE):
        if (prefix := tower.prefix_in(places, bare.MARKS)) is not None:
            return replace(whole, layout=layout, places=_parts(places, prefix, bare.PARTS, "vision_model."))
    return None


def _clip_in(whole: Checkpoint) -> Checkpoint | None:
    """The encoder with its projection.

    Raises:
        ModelError: a tensor has not the shape that its layout gives it.
    """
    for layout, places, pieces in _ways_to_read(whole, TRANSFORMER):
        if PATCHES not in places:
            continue
        for name, piece in pieces.items():
            file, key = places[name]
            if not piece.fits(file.shape(key)):
                raise ModelError(
                    f"{whole.source} holds {printable(key)} in a shape that it cannot have: {file.shape(key)}",
                    f"Name the file of {layout.part_of or layout.name} as published",
                )
        return replace(whole, layout=layout, places=_parts(places, "", _PARTS), pieces=pieces)
    return None


def _nothing_known(whole: Checkpoint) -> ModelError:
    """The error where no encoder is found: why, and what to do."""
    if all(name in whole.places for name in bare.MARKS):
        return ModelError(
            f"{whole.source} holds a CLIP vision transformer without its projection, under names of transformers 5",
            WITH_PROJECTION,
        )
    if any(name.endswith(_OPEN_CLIP) for name in whole.places):
        return ModelError(
            f"{whole.source} has the layout of open_clip",
            "Convert it to the layout of transformers, or name a copy in that layout",
        )
    if named := next((name for name in whole.places if name.endswith(f".{PATCHES}")), None):
        return ModelError(
            f"{whole.source} holds a vision transformer below a prefix that no generator uses: "
            f"{printable(named.removesuffix(PATCHES))}",
            "Remove the prefix from the names of its tensors",
        )
    return ModelError(
        f"{whole.source} holds no vision transformer of CLIP, SigLIP or EVA02-CLIP: no tensor is called {PATCHES}, "
        "with or without a known prefix",
        f"Name an encoder in the layout of transformers, or a {_wholes()} checkpoint",
    )


def _ways_to_read(
    whole: Checkpoint, kind: Anatomy
) -> Iterator[tuple[Layout, Mapping[str, _Place], Mapping[str, Piece]]]:
    """The layouts that a kind of encoder can lie in here.

    Each comes with the tensors that would be the encoder's, and those of them that the file has in another form.
    """
    for layout in layouts_of(kind.family):
        if layout.is_met_in(folder=whole.source.is_dir()):
            named = [(piece, place) for there, place in whole.places.items() for piece in layout.pieces(there)]
            pieces = {piece.own: piece for piece, _ in named if not piece.is_whole}
            yield layout, {piece.own: place for piece, place in named}, pieces


def _parts(places: Mapping[str, _Place], prefix: str, parts: Iterable[str], instead: str = "") -> dict[str, _Place]:
    """The places of an encoder's tensors, with the prefix of their names replaced."""
    starts = tuple(f"{prefix}{part}" for part in parts)
    return {f"{instead}{name.removeprefix(prefix)}": place for name, place in places.items() if name.startswith(starts)}


def _wholes() -> str:
    """Whose checkpoints hold an encoder of CLIP."""
    return " or ".join(layout.part_of for layout in layouts_of(CLIP) if layout.part_of is not None)


def _stamp(paths: Iterable[Path]) -> tuple[Stamp, ...]:
    return tuple(stamp_of(path.stat()) for path in paths if path.exists())
