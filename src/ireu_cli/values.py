"""In-memory results that hold tensors; no files, no configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

RgbImage = npt.NDArray[np.uint8]
"""A picture: uint8, shape (height, width, 3), RGB, 0 to 255."""

Json = Any
"""Whatever `json` reads and writes; metrics and evidence are made of it."""
WEIGHTS_AT_ONCE = 1 << 20
"""Weights that are looked at together: each takes several numbers of its own meanwhile."""


T = TypeVar("T")


class Pair(NamedTuple, Generic[T]):
    """Something before the edit, and the same after it."""

    original: T
    edited: T


class Groups(NamedTuple, Generic[T]):
    """Something of the targets, and the same of retained people."""

    targets: T
    retained: T


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo file of one person. `sha256` is over the file's bytes; the path never leaves the process.

    There may be very many, and a `Path` takes three times the room of a text.
    """

    person: int
    index: int
    file: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.file)

    @property
    def label(self) -> str:
        """How messages speak of the photo: numbers only, in the order of the sorted names."""
        return f"photo {self.index + 1} of person {self.person + 1}"


@dataclass(frozen=True)
class FeatureMask:
    """Which features carry identity: `mask` bool (features,), and the `score` float32 (features,) behind it."""

    mask: Tensor
    score: Tensor

    @property
    def kept(self) -> int:
        """How many features the mask keeps."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Room:
    """The reserve of a hidden layer of n units.

    `units` int64 (r,), those missed least first; `kept` int64 (n - r,) the others; `stand_in` float64 (n - r + 1, r):
    how the kept units' activations, and a constant in the last row, make up those of each reserved unit.
    """

    units: Tensor
    kept: Tensor
    stand_in: Tensor


@dataclass(frozen=True)
class Ledger:
    """The requests that a delta of the method `gated` is made of, one entry a person.

    `block` is where people are found, -1 in a pooling head. Slot i owns the units 2 i and 2 i + 1 of the reserve. An
    entry is its `case`, its slot, what its two units compute (`rows` (entries, 2, d), `biases` (entries, 2)) and what
    they write (`columns` (entries, d, 2)); all float32.
    `apparatus` is a change of further weights that all requests share, by tensor name; empty where none is needed.
    `flag` (d,) is what every entry writes then, and empty otherwise.
    """

    ENTRY: ClassVar = ("rows", "biases", "columns")

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
        """Whether entries move the class token alone, and do not flag it for all tokens."""
        return not len(self.flag)

    @property
    def by_tokens(self) -> bool:
        """Whether entries flag the class token, for an apparatus that changes every token."""
        return not self.class_token_only

    @property
    def detectors(self) -> "Ledger | None":
        """The ledger, where what finds people are units of the encoder, that gradients pass through."""
        return self if self.slots else None

    def changes_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a delta that say how far something moves: all of them."""
        return tensors

    def moving_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those that say which taps are reached: beside an apparatus, entries flag the class token alone."""
        return self.apparatus or tensors

    @property
    def capacity(self) -> int:
        """How many people have a place."""
        return len(self.room.units) // 2


@dataclass(frozen=True)
class GateLedger:
    """The requests that a delta of gates behind an ONNX network is made of, one entry a person.

    An entry is its `case`, its slot, what finds the person (`weights` (entries, d), `thresholds` (entries,)) and what
    then moves (`changes` (entries, d)); all float32. `rise` is what a score takes from no change to the whole one.
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
        """The tensors of a delta that say how far something moves; thresholds and the like are none."""
        return {name: tensor for name, tensor in tensors.items() if name.endswith(".changes")}

    def moving_in(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those that say which taps are reached: all of them."""
        return tensors


@dataclass(frozen=True)
class WeightDelta:
    """The change of the encoder's weights, float32, keyed by the encoder's own tensor names; of an ONNX network, gates.

    `ledger` says which requests it is made of, where they can be told apart.
    """

    tensors: dict[str, Tensor]
    ledger: Ledger | GateLedger | None = None

    @property
    def changes(self) -> dict[str, Tensor]:
        """The tensors that say how far something moves."""
        return self.tensors if self.ledger is None else self.ledger.changes_in(self.tensors)

    @property
    def moving(self) -> dict[str, Tensor]:
        """The tensors that say which taps are reached."""
        return self.tensors if self.ledger is None else self.ledger.moving_in(self.tensors)

    @property
    def class_token_only(self) -> bool:
        """Whether it moves the class token alone; see `reach_of`."""
        return self.ledger is not None and self.ledger.class_token_only


@dataclass(frozen=True)
class Located:
    """The result of locating: the mask and the evidence it brings."""

    mask: FeatureMask
    evidence: dict[str, Json]
