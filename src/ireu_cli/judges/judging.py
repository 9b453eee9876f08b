"""What all judging recognisers share: they turn aligned faces into unit vectors, and they have a fingerprint.

Faces go through a network one at a time. On a CPU larger batches are no faster, networks with a fixed batch of one need
no special case, and a vector never depends on other faces. Only the embedded recogniser, on a GPU, takes them together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ireu_cli.errors import ModelError
from ireu_cli.judges.recogniser import ALIGNED, Recogniser
from ireu_cli.values import RgbImage

Run = Callable[[RgbImage], npt.NDArray[Any]]
"""One aligned face through a network: uint8 (size, size, 3) -> float (1, d) or (1, d, 1, 1), not normalised."""
RunAll = Callable[[Sequence[RgbImage]], npt.NDArray[Any]]
"""The same for several faces in one pass: -> float (n, d)."""


@dataclass(frozen=True)
class JudgingNet:
    """A recogniser that measures identity; never the network being edited.

    Faces are aligned to ArcFace's template at `size` px, with `margin` of its side as room around it. `fingerprint`
    (hex) covers everything that decides a vector, but no name and no path. `network` (hex) covers only the network, so
    that one network with two descriptions is recognised as one. `width` is d. `file` is the path of a network in ONNX.
    With `run_all`, faces go through together.
    """

    name: str
    fingerprint: str
    network: str
    size: int
    margin: float
    width: int
    run: Run
    file: Path | None = None
    run_all: RunAll | None = None

    def embed(self, faces: Sequence[RgbImage]) -> Tensor:
        """Aligned faces, each uint8 (size, size, 3) -> float32 (n, d): unit vectors.

        A row is NaN if the network gives no direction: its vector is not finite, or is zero.

        Raises:
            ValueError: a face has another size, so it was not aligned for this recogniser.
        """
        for face in faces:
            if face.shape != (self.size, self.size, 3) or face.dtype != np.uint8:
                raise ValueError(f"a face must be uint8 ({self.size}, {self.size}, 3), not {face.dtype} {face.shape}")
        if not faces:
            return torch.empty(0, self.width)
        if self.run_all is not None:
            return _unit_rows(self.run_all(faces))
        return _unit_rows(np.concatenate([self.run(face).reshape(1, self.width) for face in faces]))


def from_network(name: str, fingerprint: str, network: str, size: int, margin: float, run: Run) -> JudgingNet:
    """Wrap a network, after trying it on one face; see `JudgingNet`.

    Raises:
        ModelError: the network does not run on a face of this size, or does not give one vector a face.
    """
    answer = tried(name, size, run)
    if not is_vector(answer):
        raise ModelError(
            f"The recogniser {name} gives an array of the shape {tuple(answer.shape)} for a face, not one vector",
            "Name a network that embeds faces and ends with its embedding",
        )
    return JudgingNet(name, fingerprint, network, size, margin, int(answer.shape[1]), run)


def from_embedded(recogniser: Recogniser) -> JudgingNet:
    """Wrap the recogniser of a bundle, on its own device."""

    def run(face: RgbImage) -> npt.NDArray[Any]:
        return np.asarray(recogniser.vector(face)[None].numpy())

    def run_all(faces: Sequence[RgbImage]) -> npt.NDArray[Any]:
        return np.asarray(recogniser.vectors(faces).numpy())

    network = recogniser.fingerprint
    net = from_network(recogniser.name, network, network, ALIGNED, 0.0, run)
    return net if recogniser.device.type == "cpu" else replace(net, run_all=run_all)


def is_vector(answer: npt.NDArray[Any]) -> bool:
    """Whether the answer to one face is one vector: (1, d), or (1, d, 1, 1), of at least two numbers."""
    return answer.ndim >= 2 and answer.size == answer.shape[1] >= 2


def tried(name: str, size: int, run: Callable[[RgbImage], Any]) -> Any:
    """Run a network on a grey picture.

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
    # A zero vector gives NaN anyway; in a row with an infinity, the other entries would become zero.
    unit: Tensor = (rows / length).masked_fill(~torch.isfinite(length), torch.nan)
    return unit.float()
