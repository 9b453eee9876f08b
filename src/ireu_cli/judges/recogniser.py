"""The embedded recogniser: it turns aligned faces into unit vectors and is differentiable, for saliency."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.files.portrait import Name
from ireu_cli.judges.face_net import FaceNet
from ireu_cli.judges.small_nets import NetSettings, read_net
from ireu_cli.values import RgbImage

ALIGNED = 112
"""Side of an aligned face in pixels (ArcFace's template)."""


class _Settings(NetSettings):
    name: Name
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=1, max_length=5)
    blocks: tuple[Annotated[int, Field(ge=1, le=200)], ...] = Field(min_length=1, max_length=5)
    tail: int = Field(ge=1, le=4096)
    embedding: int = Field(ge=1, le=8192)

    @model_validator(mode="after")
    def _of_stages(self) -> Self:
        if len(self.widths) != len(self.blocks):
            raise ValueError("a stage has a width and a number of blocks")
        return self

    def build(self) -> FaceNet:
        """Build the network."""
        return FaceNet(self.widths, self.blocks, self.tail, self.embedding)


@dataclass(frozen=True)
class Recogniser:
    """A face recogniser that measures; never the network being edited."""

    net: FaceNet
    name: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its weights."""
        return fingerprint_of(self.net.state_dict())

    def embed(self, faces: Tensor) -> Tensor:
        """Aligned faces (n, 3, 112, 112), RGB in [0, 1] -> float32 unit vectors (n, d); gradients pass through."""
        return functional.normalize(self.net(faces.float() * 2 - 1), dim=1)

    def vector(self, face: RgbImage) -> Tensor:
        """An aligned face -> its float32 unit vector (d,), on the CPU."""
        return self.vectors([face])[0]

    def vectors(self, faces: Sequence[RgbImage]) -> Tensor:
        """Aligned faces, each uint8 (112, 112, 3), in one pass -> float32 unit vectors (n, d), on the CPU."""
        pixels = torch.from_numpy(np.stack(faces)).to(self.device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return self.embed(pixels).float().cpu()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.net.parameters()).device


def load_recogniser(folder: Path, device: str = "cpu") -> Recogniser:
    """Load the embedded recogniser from its folder (config.json, model.safetensors).

    Raises:
        ModelError: a file is missing or damaged, or the two do not fit together.
    """
    # A block has a dozen tensors and more.
    net, settings = read_net(folder, _Settings, lambda stated: 12 * sum(stated.blocks), _Settings.build)
    return Recogniser(net.to(torch.device(device)), settings.name)
