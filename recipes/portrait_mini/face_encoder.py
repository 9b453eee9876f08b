"""The ArcFace-type face encoder of portrait-mini: a small residual network with the tail of the published ones."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import torch
from torch import nn
from views import ALIGNED

from ireu_cli.judges.face_net import FaceNet

SLOPE = 0.25  # below zero; where PReLU starts
WIDTHS, BLOCKS, TAIL = (32, 48, 96, 192), (1, 2, 3, 2), 24


class FaceEncoder(FaceNet):
    """The face encoder at its size."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, BLOCKS, TAIL)


def activations(module: nn.Module, *, learnt: bool) -> nn.Module:
    """Put PReLU in place of fixed slopes, or the reverse: learning slopes takes a quarter of a step, for nothing seen.

    Published networks of this type have PReLU, so that is what is written.
    """
    for name, part in module.named_children():
        if isinstance(part, nn.LeakyReLU) and learnt:
            setattr(module, name, nn.PReLU(1, SLOPE))
        elif isinstance(part, nn.PReLU) and not learnt:
            setattr(module, name, nn.LeakyReLU(SLOPE))
        else:
            activations(part, learnt=learnt)
    return module


class Student(nn.Module):
    """The face encoder and the head that reads the teacher's map from its own last map."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = FaceEncoder()
        activations(self.encoder, learnt=False)
        self.places = nn.Conv2d(WIDTHS[-1], 100, 1)

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-> embedding (n, 512), places (n, 100, 7, 7)."""
        found = self.encoder.places(faces)
        return self.encoder.embed(found), self.places(found)


def export(encoder: FaceEncoder, file: Path) -> None:
    """Write ONNX as insightface expects a recogniser: one input ``input.1``, one output, batch free."""
    part = file.with_name(f"{file.stem}.part.onnx")
    written = activations(copy.deepcopy(encoder), learnt=True).eval()
    torch.onnx.export(
        written,
        (torch.zeros(1, 3, ALIGNED, ALIGNED),),
        str(part),
        input_names=["input.1"],
        output_names=["embedding"],
        dynamic_axes={"input.1": {0: "n"}, "embedding": {0: "n"}},
        opset_version=13,
        do_constant_folding=True,
        dynamo=False,
    )
    onnx.checker.check_model(str(part))
    part.replace(file)
