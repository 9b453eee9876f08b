"""What a layout is: how it is told from others, how tensors are called in it, where its files lie, who loads it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CLIP, BARE, SIGLIP, DINOV2, EVA = "clip", "clip without projection", "siglip", "dinov2", "eva"
NETWORK, FACEXLIB = "network", "facexlib"
"""Kinds of encoders: vision transformers of CLIP, with projection and without, of SigLIP, of DINOv2 and of EVA02-CLIP,
face-embedding networks in ONNX, and facexlib's."""


@dataclass(frozen=True)
class Piece:
    """How a tensor of an encoder lies in a tensor of a file.

    Attributes:
        own: how the encoder calls it.
        part: which of the equal parts of the file's rows it is, counted from 0.
        parts: how many such parts there are.
        ones: how many axes of length 1 the file has before the tensor's own.
        turned: whether rows and columns are exchanged in the file.
    """

    own: str
    part: int = 0
    parts: int = 1
    ones: int = 0
    turned: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the file has the tensor as the encoder has it."""
        return (self.part, self.parts, self.ones, self.turned) == (0, 1, 0, False)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape in a file can hold it."""
        ones, own = shape[: self.ones], shape[self.ones :]
        return (
            tuple(ones) == (1,) * self.ones
            and (self.is_whole or len(own) > 0)
            and (self.parts == 1 or own[0] % self.parts == 0)
            and (not self.turned or len(own) == 2)
        )

    def of(self, there: "Tensor") -> "Tensor":
        """The part of a file's tensor that is the encoder's: a view, so what you write there enters the file's tensor.

        Args:
            there: the file's tensor, of a shape that fits.
        """
        if self.is_whole:
            return there
        own = there[(0,) * self.ones]
        rows = len(own) // self.parts
        own = own[self.part * rows : (self.part + 1) * rows]
        return own.T if self.turned else own


@dataclass(frozen=True)
class Layout:
    """Files that people ship an encoder in.

    To add one, write a row in `table`. Where a prefix does not say how its tensors are called, write a class that
    inherits from this one in a file of its own, with another `own_name` and `name_there`. Where its tensors lie fused
    or otherwise shaped, the class has another `pieces` instead.

    Attributes:
        name: what `export.format` calls it, and `ireu inspect`.
        holds: the kinds of encoders that lie in it.
        in_folder: whether a folder is named to load it, with settings beside the weights; else the file itself.
        library: what loads it, as model cards name libraries.
        prefix: what the names of the encoder's tensors begin with in the file.
        part_of: whose checkpoint the encoder is a part of, so that a new one needs a source in this layout; None where
            the encoder needs nothing beside it, so that any can be written in this layout.
        file: how a file of weights is called that has no name from before.
        files_of_groups: the same of published encoders, by their groups (see `encoders.systems`).
        groups: of encoders that are found in no other layout: how the name of some tensor in the file begins, and the
            group of the encoder then; the first that is found counts.
        inside: where the encoder's folder lies in somebody's repository, such as `models/image_encoder`. There it is
            read as what its own folder holds.
        beside: patterns of the files that are carried along from beside a folder of the last name in `inside`.
        squeezes: whether its loader squeezes pictures of any shape into a square; most cut the middle out.
        has_checksum: whether a file of the same name that ends in `.hash` lies beside it, with the CRC-32 of its bytes,
            which the loader compares.
        is_gate: whether it holds the detectors of a delta and no encoder, so that no encoder is found in it.
    """

    name: str
    holds: frozenset[str]
    in_folder: bool
    library: str
    prefix: str = ""
    part_of: str | None = None
    file: str = "model.safetensors"
    files_of_groups: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    inside: str = ""
    beside: tuple[str, ...] = ()
    squeezes: bool = False
    has_checksum: bool = False
    is_gate: bool = False

    def is_met_in(self, *, folder: bool) -> bool:
        """Whether an encoder can be found in this layout where a folder was named, or a file.

        A file with a prefix is met in folders too, as whole checkpoints lie there under a usual name.
        """
        if self.inside or self.is_gate:
            return False
        return folder if self.in_folder else not folder or bool(self.prefix)

    def own_name(self, there: str) -> str | None:
        """How the encoder itself calls a tensor of the file; None where the tensor is of something else."""
        return there.removeprefix(self.prefix) if there.startswith(self.prefix) else None

    def pieces(self, there: str) -> tuple[Piece, ...]:
        """The tensors of the encoder that lie in a tensor of the file; none where it is of something else."""
        own = self.own_name(there)
        return () if own is None else (Piece(own),)

    def name_there(self, own: str) -> str:
        """How a tensor of the encoder is called in a file that holds nothing else."""
        return f"{self.prefix}{own}"

    def file_of(self, groups: Iterable[str]) -> str:
        """How a file of weights is called that has no name from before; `groups` are those of the encoder."""
        return next((self.files_of_groups[group] for group in groups if group in self.files_of_groups), self.file)

    def group_in(self, names: Iterable[str]) -> str | None:
        """The group of an encoder that is found in no other layout, from the names of all tensors beside it."""
        names = tuple(names)
        marks = (mark for mark in self.groups if any(name.startswith(mark) for name in names))
        return next((self.groups[mark] for mark in marks), None)
