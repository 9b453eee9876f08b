"""Values that packages hand to each other: photos and people, masks, deltas. Nothing here reads files or settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ireu_cli.support.photo_table import Photo as Photo
from ireu_cli.support.photo_table import PhotoTable as PhotoTable
from ireu_cli.support.photo_table import accepted

RgbImage = npt.NDArray[np.uint8]
"""A picture: uint8, shape (height, width, 3), RGB, 0 to 255."""

Json = Any
"""All types that `json` reads and writes; metrics and evidence are made of them."""
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The precisions in which encoders run, by name."""
WEIGHTS_AT_ONCE = 1 << 20
"""The number of weights that are processed together; each needs several temporary numbers."""


T = TypeVar("T")


class Pair(NamedTuple, Generic[T]):
    """Something before the edit, and the same after it."""

    original: T
    edited: T


STATES: tuple[Literal["original", "edited"], Literal["original", "edited"]] = ("original", "edited")
"""The fields of a `Pair` by name, in their order."""


class Groups(NamedTuple, Generic[T]):
    """Something of the targets, and the same of retained people."""

    targets: T
    retained: T


@dataclass(frozen=True)
class Unread:
    """A photo or a folder of a person that cannot be read: its person's number from 0, its label, path, and reason."""

    person: int
    label: str
    path: Path
    reason: str


@dataclass(frozen=True)
class People:
    """The photos of a folder by person, and notes about what was left out, without names.

    `folders` are the folders of all people by their numbers; without subfolders, it is the folder itself.
    """

    photos: PhotoTable
    labelled: bool
    notes: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def flat(self) -> Sequence[Photo]:
        """All photos, person by person."""
        return self.photos.flat

    def where(self, keep: Callable[[Photo], Any]) -> "People":
        """Return the photos that `keep` accepts; people keep their numbers, and people without a photo are dropped."""
        return replace(self, photos=self.photos.keep(accepted(self.photos, keep)))


@dataclass(frozen=True)
class FeatureMask:
    """Which features carry identity: `mask` bool (features,), and the `score` float32 (features,) behind it."""

    mask: Tensor
    score: Tensor

    @property
    def kept(self) -> int:
        """The number of features that the mask keeps."""
        return int(self.mask.sum())


UNITS_EACH = 2
"""The hidden units that a person takes."""


def most_people(units: int) -> int:
    """How many people a layer of so many hidden units can hold: they may take half of it."""
    return units // (2 * UNITS_EACH)


def most_people_in_heads(heads: int, size: int) -> int:
    """How many people an attention of so many heads, of so many channels each, can hold: they may take half of it."""
    return heads // 2 * size


@dataclass(frozen=True)
class Room:
    """The reserved units of a hidden layer of n units.

    `units` int64 (r,) are the reserved units, the least needed first; `kept` int64 (n - r,) are the others. `stand_in`
    float64 (n - r + 1, r) approximates each reserved unit's activation from those of the kept units and a constant,
    which is the last row.
    """

    units: Tensor
    kept: Tensor
    stand_in: Tensor


class _OfUnits:
    """What ledgers of hidden units have in common."""

    slots: tuple[int, ...]

    @property
    def detectors(self) -> Self | None:
        """The ledger, if units of the encoder find people, so that gradients pass through them."""
        return self if self.slots else None

    def changes_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a delta that say how far something moves: all of them."""
        return tensors


@dataclass(frozen=True)
class Ledger(_OfUnits):
    """The requests in a delta of the method `gated`, one entry a person.

    `block` is the block in which people are found, -1 for a pooling head. Slot i owns the reserved units 2 i and 2 i +
    1. An entry has its `case`, its slot, the weights that its two units read with (`rows` (entries, 2, d), `biases`
    (entries, 2)) and the ones that they write with (`columns` (entries, d, 2)); all are float32. `apparatus` is a
    change of further weights that all requests share, by tensor name; it is empty if none is needed. With an apparatus,
    every entry writes `flag` (d,), which is empty otherwise.
    """

    ENTRY: ClassVar = ("rows", "biases", "columns")
    pooled: ClassVar = False

    block: int
    room: Room
    cases: tuple[str, ...]
    slots: tuple[int, ...]
    rows: Tensor
    biases: Tensor
    columns: Tensor
    apparatus: dict[str, Tensor]
    flag: Tensor

    @property
    def class_token_only(self) -> bool:
        """Whether entries move only the class token, and do not flag it for all tokens."""
        return not len(self.flag)

    @property
    def by_tokens(self) -> bool:
        """Whether entries flag the class token, for an apparatus that changes every token."""
        return not self.class_token_only

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        """Weights (entries, d) and offsets (entries,) of scores that open where they are above zero."""
        return self.rows[:, 0], self.biases[:, 0]

    def moving_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that decide which taps are reached: with an apparatus, entries only flag the class token."""
        return self.apparatus or tensors

    @property
    def capacity(self) -> int:
        """The number of people that have a place."""
        return len(self.room.units) // 2


@dataclass(frozen=True)
class GateLedger:
    """The requests in a delta of gates behind an ONNX network, one entry a person.

    An entry has its `case`, its slot, the values that find the person (`weights` (entries, d), `thresholds` (entries,))
    and the change that follows (`changes` (entries, d)); all are float32. `rise` is the range of scores from no change
    to the whole change.
    """

    ENTRY: ClassVar = ("weights", "thresholds", "changes")

    capacity: int
    cases: tuple[str, ...]
    slots: tuple[int, ...]
    weights: Tensor
    thresholds: Tensor
    changes: Tensor
    rise: float

    class_token_only: ClassVar = False
    by_tokens: ClassVar = False
    detectors: ClassVar = None

    def changes_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a delta that say how far something moves; thresholds do not count."""
        return {name: tensor for name, tensor in tensors.items() if name.endswith(".changes")}

    def moving_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that decide which taps are reached: all of them."""
        return tensors


@dataclass(frozen=True)
class PooledLedger(_OfUnits):
    """The requests in a delta of `gated` that finds people in all tokens of a block, one entry a person.

    Some heads of the block's attention average all tokens. An entry has its `case`, its slot, and a score: `reads`
    (entries, d) of the averaged tokens, plus `offsets` (entries,), in standard deviations of other people's scores. It
    opens from `thresholds` (entries,) on, over the width `rises` (entries,), with corners of `sharpness` (entries,).
    All are float32.

    Slot i owns the heads' value `channels[i]`, int64, and the reserved units 4 i to 4 i + 3. For a score of one, the
    attention adds `writers[i]` to every token, `readers[i]` @ inputs - `rests[i]` of the hidden layer is about one, and
    `takers[i]` takes it out again; (places, d), but `rests` (places,). `openings` (places, scores) are the readings
    from which units open, for scores of 0, 0.5, 1 and so on. `apparatus` and `flag` are as in `Ledger`; the
    apparatus holds the heads too.
    """

    ENTRY: ClassVar = ("reads", "offsets", "thresholds", "rises", "sharpness")
    SHARED: ClassVar = ("channels", "writers", "readers", "rests", "takers", "openings")

    block: int
    room: Room
    cases: tuple[str, ...]
    slots: tuple[int, ...]
    reads: Tensor
    offsets: Tensor
    thresholds: Tensor
    rises: Tensor
    sharpness: Tensor
    channels: Tensor
    writers: Tensor
    readers: Tensor
    rests: Tensor
    takers: Tensor
    openings: Tensor
    apparatus: dict[str, Tensor]
    flag: Tensor

    class_token_only: ClassVar = False
    by_tokens: ClassVar = True
    pooled: ClassVar = True

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        """As in `Ledger`, of the averaged tokens: in the same measure, which is that of the units that open."""
        steep = self.sharpness / self.rises
        return self.reads * steep[:, None], (self.offsets - self.thresholds) * steep

    def moving_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that decide which taps are reached: the block in which people are found only flags tokens."""
        own = f".layers.{self.block}."
        return {name: change for name, change in self.apparatus.items() if own not in name} or tensors

    @property
    def capacity(self) -> int:
        """The number of people that have a place."""
        return len(self.channels)


AnyLedger: TypeAlias = Ledger | GateLedger | PooledLedger


@dataclass(frozen=True)
class WeightDelta:
    """The change of the encoder's weights, float32, by the encoder's own tensor names; for an ONNX network, gates.

    `ledger` lists its requests, if they can be told apart.
    """

    tensors: dict[str, Tensor]
    ledger: AnyLedger | None = None

    @property
    def changes(self) -> dict[str, Tensor]:
        """The tensors that say how far something moves."""
        return self.tensors if self.ledger is None else self.ledger.changes_in(self.tensors)

    @property
    def moving(self) -> dict[str, Tensor]:
        """The tensors that decide which taps are reached."""
        return self.tensors if self.ledger is None else self.ledger.moving_in(self.tensors)

    @property
    def class_token_only(self) -> bool:
        """Whether it moves only the class token; see `reach_of`."""
        return self.ledger is not None and self.ledger.class_token_only


@dataclass(frozen=True)
class Located:
    """The result of locating: the mask and the evidence for it."""

    mask: FeatureMask
    evidence: dict[str, Json]
