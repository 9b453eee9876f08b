"""The embedded face check: it says whether there is a face in the picture, and where its landmarks are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.judges.small_nets import NetSettings, read_net
from ireu_cli.values import RgbImage

SIDE = 64
"""The number of pixels a side to which pictures are reduced before the network sees them."""


class FaceCheckNet(nn.Module):
    """Pictures (n, 3, 64, 64) in [0, 1] -> (n, 11): logit that there is a face, then x, y of five landmarks.

    Landmarks are fractions of the picture's width and height: eyes, nose, mouth corners, from the viewer's left.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Args: channels of the five stages, each of which halves the picture."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)
        side = SIDE // 2 ** len(widths)
        self.head = nn.Sequential(nn.Linear(before * side * side, 128), nn.ReLU(), nn.Linear(128, 11))

    def forward(self, pictures: Tensor) -> Tensor:
        """-> (n, 11)."""
        found: Tensor = self.head(self.body(pictures * 2 - 1).flatten(1))
        return found


class _Settings(NetSettings):
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=1, max_length=5)
    threshold: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class FoundFace:
    """The result for one picture: the probability that there is a face, and landmarks (5, 2) in pixels."""

    score: float
    landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class FaceCheck:
    """The network with the threshold that its model card states."""

    net: FaceCheckNet
    threshold: float

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its weights."""
        return fingerprint_of(self.net.state_dict())

    def look(self, images: Sequence[RgbImage]) -> list[FoundFace]:
        """Check pictures of any sizes; one result each, in order."""
        found: list[FoundFace] = []
        device = next(self.net.parameters()).device
        for image in images:
            pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
            small = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            with torch.inference_mode():
                answer = self.net(small)[0].float().cpu()
            height, width = image.shape[:2]
            points = answer[1:].view(5, 2).numpy() * np.array([width, height], np.float32)
            found.append(FoundFace(float(answer[0].sigmoid()), points))
        return found


def load_face_check(folder: Path, device: str = "cpu") -> FaceCheck:
    """Load the embedded face check from its folder (config.json, model.safetensors).

    Raises:
        ModelError: a file is missing or damaged, or the two do not fit together.
    """
    net, settings = read_net(
        folder, _Settings, lambda stated: 2 * len(stated.widths), lambda stated: FaceCheckNet(stated.widths)
    )
    return FaceCheck(net.to(torch.device(device)), settings.threshold)
