"""The residual face-embedding network of portrait-mini; its face encoder and its recogniser are two sizes of it."""

from collections.abc import Sequence

import torch
from torch import nn


class FaceNet(nn.Module):
    """Aligned faces (n, 3, 112, 112), RGB, (x - 127.5) / 127.5 -> embedding (n, 512), not normalised.

    The tail (batch norm, flatten, matrix, batch norm) is that of the published ArcFace networks.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], tail: int, embedding: int = 512) -> None:
        """Args: channels and blocks of each stage, channels kept before flattening, size of the embedding."""
        super().__init__()
        self.stem = nn.Sequential(_conv(3, widths[0], 3, 2), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0]))
        body, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(count):
                body.append(_Block(before, width, 2 if i == 0 and stage > 0 else 1))
                before = width
        self.body = nn.Sequential(*body)
        # The map is narrowed before it is flattened; otherwise the last matrix would hold two thirds of all weights.
        self.narrow = nn.Sequential(_conv(before, tail, 1), nn.BatchNorm2d(tail), nn.PReLU(tail))
        self.bn2 = nn.BatchNorm2d(tail)
        side = 56 // 2 ** (len(widths) - 1)
        self.fc = nn.Linear(tail * side * side, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """-> (n, 512)."""
        embedding: torch.Tensor = self.embed(self.places(faces))
        return embedding

    def places(self, faces: torch.Tensor) -> torch.Tensor:
        """-> the last map (n, channels, 7, 7)."""
        found: torch.Tensor = self.body(self.stem(faces))
        return found

    def embed(self, places: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, 7, 7) -> embedding (n, 512)."""
        embedding: torch.Tensor = self.features(self.fc(self.bn2(self.narrow(places)).flatten(1)))
        return embedding


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN beside the identity (or a strided 1 x 1)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            _conv(before, after, 3),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            _conv(after, after, 3, stride),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        self.skip = nn.Identity() if same else nn.Sequential(_conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x) + self.skip(x)
        return y


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias; a normalisation always follows."""
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)
