"""The embedded recogniser: aligned faces to unit vectors, differentiable, for measuring and for saliency."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ireu_cli.models.face_net import FaceNet
from ireu_cli.values import RgbImage

ALIGNED = 112
"""Side of an aligned face in pixels (ArcFace's template)."""


@dataclass(frozen=True)
class Recogniser:
    """A face recogniser that measures; never the network being edited."""

    net: FaceNet
    name: str

    def embed(self, faces: Tensor) -> Tensor:
        """Aligned faces (n, 3, 112, 112), RGB in [0, 1] -> float32 unit vectors (n, d); gradients pass through."""
        return functional.normalize(self.net(faces.float() * 2 - 1), dim=1)

    def vector(self, face: RgbImage) -> Tensor:
        """An aligned face -> its float32 unit vector (d,), on the CPU."""
        device = next(self.net.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(face)).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return self.embed(pixels)[0].float().cpu()


def load_recogniser(folder: Path, device: str = "cpu") -> Recogniser:
    """Load the embedded recogniser from its folder (config.json, model.safetensors)."""
    config = json.loads((folder / "config.json").read_text())
    net = FaceNet(config["widths"], config["blocks"], config["tail"], config["embedding"])
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()})
    return Recogniser(net.eval().requires_grad_(False).to(torch.device(device)), str(config["name"]))
