"""The ArcFace-type face encoder of portrait-mini: a small residual network with the tail of the published ones."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn
from views import ALIGNED

IDENTITY = 512
WIDTHS, BLOCKS, TAIL = (32, 48, 96, 192), (1, 2, 3, 2), 64


def conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias; a normalisation always follows."""
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN beside the identity (or a strided 1 x 1)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            conv(before, after, 3),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            conv(after, after, 3, stride),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        self.skip = nn.Identity() if same else nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, before, h, w) -> (n, after, h / stride, w / stride)."""
        y: torch.Tensor = self.body(x) + self.skip(x)
        return y


class FaceEncoder(nn.Module):
    """Aligned faces (n, 3, 112, 112), RGB, (x - 127.5) / 127.5 -> embedding (n, 512), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        stem, *_ = WIDTHS
        self.stem = nn.Sequential(conv(3, stem, 3, 2), nn.BatchNorm2d(stem), nn.PReLU(stem))
        blocks, before = [], stem
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            for i in range(count):
                blocks.append(Block(before, width, 2 if i == 0 and stage > 0 else 1))
                before = width
        self.body = nn.Sequential(*blocks)
        # Narrowed before it is flattened: otherwise the last matrix would be two thirds of all weights.
        self.narrow = nn.Sequential(conv(before, TAIL, 1), nn.BatchNorm2d(TAIL), nn.PReLU(TAIL))
        self.bn2 = nn.BatchNorm2d(TAIL)
        self.fc = nn.Linear(TAIL * 49, IDENTITY)
        self.features = nn.BatchNorm1d(IDENTITY)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """-> (n, 512)."""
        embedding: torch.Tensor = self.embed(self.body(self.stem(faces)))
        return embedding

    def embed(self, places: torch.Tensor) -> torch.Tensor:
        """Map (n, 192, 7, 7) -> embedding (n, 512)."""
        embedding: torch.Tensor = self.features(self.fc(self.bn2(self.narrow(places)).flatten(1)))
        return embedding


class Student(nn.Module):
    """The face encoder and the head that reads the teacher's map from its own last map."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = FaceEncoder()
        self.places = nn.Conv2d(WIDTHS[-1], 100, 1)

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-> embedding (n, 512), places (n, 100, 7, 7)."""
        found = self.encoder.body(self.encoder.stem(faces))
        return self.encoder.embed(found), self.places(found)


def export(encoder: FaceEncoder, file: Path) -> None:
    """Write ONNX as insightface expects a recogniser: one input ``input.1``, one output, batch free."""
    part = file.with_name(f"{file.stem}.part.onnx")
    torch.onnx.export(
        encoder.eval(),
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
