"""In-memory results that hold tensors; no files, no configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

RgbImage = npt.NDArray[np.uint8]
"""A picture: uint8, shape (height, width, 3), RGB, 0 to 255."""

Json = Any
"""Whatever `json` reads and writes; metrics and evidence are made of it."""


@dataclass(frozen=True)
class Photo:
    """One photo file of one person. `sha256` is over the file's bytes; the path never leaves the process."""

    person: int
    index: int
    path: Path
    sha256: str

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
class WeightDelta:
    """The change of the encoder's weights, float32, keyed by the encoder's own tensor names."""

    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Located:
    """The result of locating: the mask and the evidence it brings."""

    mask: FeatureMask
    evidence: dict[str, Json]
