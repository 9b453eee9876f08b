"""Landmarks of the photos, by the last stage of MTCNN: the photos share one frame, so its first stages have no work.

The network is MTCNN's O-Net (Zhang et al. 2016) with the weights and names of facenet-pytorch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from faces import Photos
from torch import nn
from torch.nn import functional
from views import plain

FACE_BOX = (36.0, 22.0, 128.0, 142.0)  # x0, y0, x1, y1 of a usual face in a photo of 160 pixels
ROUNDS = 2  # the box is corrected once by the network's own answer


class OutputNet(nn.Module):
    """48-pixel crops (n, 3, 48, 48) in [-1, 1] -> face logits (n, 2), box (n, 4), landmarks (n, 10), of the crop."""

    def __init__(self) -> None:
        super().__init__()
        for number, (before, after, size) in enumerate(((3, 32, 3), (32, 64, 3), (64, 64, 3), (64, 128, 2)), 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, after, size))
            setattr(self, f"prelu{number}", nn.PReLU(after))
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-> logits, box, landmarks."""
        pools = {1: 3, 2: 3, 3: 2}
        for number in range(1, 5):
            x = getattr(self, f"prelu{number}")(getattr(self, f"conv{number}")(x))
            if number in pools:
                x = functional.max_pool2d(x, pools[number], 2, ceil_mode=True)
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)


@torch.no_grad()
def find_landmarks(net: OutputNet, photos: Photos, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability of a face (n,) and landmarks (n, 5, 2) in pixels of the photo."""
    box = torch.tensor(FACE_BOX).expand(len(index), 4)
    for _ in range(ROUNDS):
        crops = torch.cat([_crop(photos, index[i : i + 1], box[i]) for i in range(len(index))])
        logits, shift, found = net(crops * 2 - 1)
        size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        points = torch.stack([found[:, :5], found[:, 5:]], 2) * size[:, None, :2] + box[:, None, :2]
        score, box = logits.softmax(1)[:, 1], _square(box + shift * size)
    return score, points


def _square(box: torch.Tensor) -> torch.Tensor:
    centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def _crop(photos: Photos, index: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    middle, half = (box[:2] + box[2:]) / 80 / 2 - 1, (box[2:] - box[:2]) / 160
    frame = torch.tensor([[half[0], 0.0, middle[0]], [0.0, half[1], middle[1]]])
    return plain(photos, index, frame, 48)


def load_landmarks(data: Path, photos: Photos, cache: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability of a face (n,) and landmarks (n, 5, 2) of all photos, kept in ``cache``."""
    if not cache.exists():
        net = OutputNet().eval()
        net.load_state_dict(torch.load(data / "models" / "mtcnn" / "onet.pt", weights_only=True))
        parts = [find_landmarks(net, photos, part) for part in torch.split(torch.arange(len(photos.person)), 64)]
        np.savez(cache, score=torch.cat([p[0] for p in parts]).numpy(), points=torch.cat([p[1] for p in parts]).numpy())
    with np.load(cache) as held:
        return torch.from_numpy(held["score"]), torch.from_numpy(held["points"])
