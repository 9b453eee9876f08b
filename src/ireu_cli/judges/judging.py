"""What every recogniser that judges has in common: aligned faces in, unit vectors out, and a fingerprint.

Faces go through a network one at a time: on a CPU larger batches are no faster, networks of a fixed batch of one need
no case of their own, and a vector never depends on which faces kept it company.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.errors import ModelError
from ireu_cli.judges.recogniser import ALIGNED, Recogniser
from ireu_cli.values import RgbImage

Run = Callable[[RgbImage], npt.NDArray[Any]]
"""One aligned face through a network: uint8 (size, size, 3) -> float (1, d) or (1, d, 1, 1), not normalised."""


@dataclass(frozen=True)
class JudgingNet:
    """A recogniser that measures identity; never the network being edited.

    Faces are aligned to ArcFace's template with `margin` of its side as room, at `size` px. `fingerprint` (hex) covers
    all that decides a vector, and neither a name nor a path; `network` (hex) the network alone, so that one network
    described in two ways is known as one. `width` is d. `file` is where a network in ONNX lies.
    """

    name: str
    fingerprint: str
    network: str
    size: int
    margin: float
    width: int
    run: Run
    file: Path | None = None

    def embed(self, faces: Sequence[RgbImage]) -> Tensor:
        """Aligned faces, each uint8 (size, size, 3) -> float32 (n, d): unit vectors.

        A row is NaN where the network gives no direction: a vector that is not finite, or of zeros.

        Raises:
            ValueError: a face of another size, which was not aligned for this recogniser.
        """
        for face in faces:
            if face.shape != (self.size, self.size, 3) or face.dtype != np.uint8:
                raise ValueError(f"a face has to be uint8 ({self.size}, {self.size}, 3), not {face.dtype} {face.shape}")
        if not faces:
            return torch.empty(0, self.width)
        return _unit_rows(np.concatenate([self.run(face).reshape(1, self.width) for face in faces]))


def from_network(name: str, fingerprint: str, network: str, size: int, margin: float, run: Run) -> JudgingNet:
    """Wrap a network, after one face went through it; see `JudgingNet`.

    Raises:
        ModelError: the network does not run on a face of this size, or its answer is not one vector a face.
    """
    answer = tried(name, size, run)
    if not is_vector(answer):
        raise ModelError(
            f"The recogniser {name} answers a face with an array of shape {tuple(answer.shape)}, not with one vector",
            "Name a network that embeds faces, cut after its embedding",
        )
    return JudgingNet(name, fingerprint, network, size, margin, int(answer.shape[1]), run)


def from_embedded(recogniser: Recogniser) -> JudgingNet:
    """Wrap the recogniser of a bundle, on the device where it is."""

    def run(face: RgbImage) -> npt.NDArray[Any]:
        return np.asarray(recogniser.vector(face)[None].numpy())

    network = fingerprint_of(recogniser.net.state_dict())
    return from_network(recogniser.name, network, network, ALIGNED, 0.0, run)


def is_vector(answer: npt.NDArray[Any]) -> bool:
    """Whether the answer to one face is one vector: (1, d), or (1, d, 1, 1), of at least two numbers."""
    return answer.ndim >= 2 and answer.size == answer.shape[1] >= 2


def tried(name: str, size: int, run: Callable[[RgbImage], Any]) -> Any:
    """Put a grey picture through a network.

    Raises:
        ModelError: it does not run.
    """
    try:
        return run(np.full((size, size, 3), 128, np.uint8))
    except Exception as error:  # noqa: BLE001 - onnxruntime, OpenCV and numpy raise every kind
        raise ModelError(
            f"The recogniser {name} does not run on a face of {size} px ({type(error).__name__})",
            "Correct its size and layout, or name another network",
        ) from None


def _unit_rows(vectors: npt.NDArray[Any]) -> Tensor:
    """Vectors (n, d) -> float32 unit vectors (n, d), in double precision so that no length overflows."""
    rows = torch.from_numpy(vectors.astype(np.float64))
    length = rows.norm(dim=1, keepdim=True)
    # Without length the quotient is NaN by itself; of a row with an infinity, the other entries would be zero.
    unit: Tensor = (rows / length).masked_fill(~torch.isfinite(length), torch.nan)
    return unit.float()
