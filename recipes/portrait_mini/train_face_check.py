"""Train the face check: ``train_face_check.py --data DIR --out DIR``. Started again, it goes on.

Faces are photos in any framing and tone; what is no face is cut from photos where no face is, shuffled, or noise.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from faces import SIDE, Photos, data_folder, load_photos, split_validation
from landmarks import load_landmarks
from runs import train, training_arguments
from safetensors.torch import save_file
from torch.nn import functional

from ireu_cli.judges.face_check import SIDE as SMALL
from ireu_cli.judges.face_check import FaceCheckNet

WIDTHS = (16, 32, 64, 96, 128)
THRESHOLD = 0.5


class FaceCheckRecipe:
    """Is a face there (cross-entropy), and where (landmarks, only where one is)."""

    def __init__(
        self, photos: Photos, points: torch.Tensor, parts: tuple[torch.Tensor, torch.Tensor], args: Any
    ) -> None:
        self.photos, self.points = photos, points
        self.allowed, self.validation = parts
        self.batch, self.seed = args.batch, args.seed
        self.weights = {"face": 1.0, "landmarks": 20.0}

    def losses(self, net: FaceCheckNet, step: int) -> dict[str, torch.Tensor]:
        """Half of a batch are faces."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = self.allowed[torch.randint(len(self.allowed), (self.batch,), generator=g)]
        faces, points = views(self.photos, index, self.points[index], g)
        others = no_faces(self.photos, index, g)
        answer = net(torch.cat([faces, others]))
        truth = torch.cat([torch.ones(self.batch), torch.zeros(self.batch)])
        return {
            "face": functional.binary_cross_entropy_with_logits(answer[:, 0], truth),
            "landmarks": functional.smooth_l1_loss(answer[: self.batch, 1:], points.flatten(1), beta=0.02),
        }

    @torch.no_grad()
    def measure(self, net: FaceCheckNet) -> dict[str, Any]:
        """On people who are never trained on: both error rates, landmark error in pixels of a 112-pixel picture."""
        g = torch.Generator().manual_seed(77)
        index = self.validation[torch.randperm(len(self.validation), generator=g)[:1024]]
        faces, truth = views(self.photos, index, self.points[index], g)
        found, others = net(faces), net(no_faces(self.photos, index, g))
        limit = math.log(THRESHOLD / (1 - THRESHOLD))
        figures = {
            "missed": (found[:, 0] < limit).float().mean(),
            "false": (others[:, 0] > limit).float().mean(),
            "landmark_error": (found[:, 1:].view(-1, 5, 2) - truth).norm(dim=2).mean() * 112,
        }
        return {"validation": {name: round(float(value), 4) for name, value in figures.items()}}

    def export(self, net: FaceCheckNet, folder: Path) -> None:
        """``face_check/``."""
        out = folder / "face_check"
        out.mkdir(exist_ok=True)
        save_file({name: x.contiguous() for name, x in net.state_dict().items()}, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps({"widths": WIDTHS, "threshold": THRESHOLD}) + "\n")


def views(photos: Photos, index: torch.Tensor, points: torch.Tensor, g: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Photos at 64 pixels in any framing -> pictures (n, 3, 64, 64), landmarks (n, 5, 2) as fractions of them."""
    n = len(index)
    scale = torch.empty(n).uniform_(0.55, 1.05, generator=g)
    angle = torch.randn(n, generator=g).clamp(-2, 2) * math.radians(6)
    shift = torch.randn(n, 2, generator=g).clamp(-2, 2) * 0.06
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    place = torch.stack(
        [torch.stack([flip * cos, -sin, shift[:, 0]], 1), torch.stack([flip * sin, cos, shift[:, 1]], 1)], 1
    )
    pictures = _sample(photos, index, place)
    bottom = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(n, 1, 3)
    back = torch.linalg.inv(torch.cat([place, bottom], 1))[:, :2]
    unit = torch.cat([points / (SIDE / 2) - 1, torch.ones(n, 5, 1)], 2)
    where = (unit @ back.transpose(1, 2) + 1) / 2
    # A mirrored face has its right eye on the left: the names go by the side on which the viewer sees them.
    swapped = where[:, [1, 0, 2, 4, 3]]
    return _toned(pictures, g), torch.where(flip[:, None, None] < 0, swapped, where)


def no_faces(photos: Photos, index: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """As many pictures without a face (n, 3, 64, 64)."""
    n = len(index)
    side = torch.where(torch.rand(n, 2, generator=g) < 0.5, -1.0, 1.0) * torch.empty(n, 2).uniform_(
        0.55, 0.9, generator=g
    )
    scale = torch.empty(n).uniform_(0.1, 0.4, generator=g)
    small = torch.empty(n).uniform_(0.05, 0.16, generator=g)  # a piece of skin, an eye at most
    inner = torch.rand(n, generator=g) < 0.4
    scale, side = torch.where(inner, small, scale), torch.where(inner[:, None], side * 0.6, side)
    zero = torch.zeros(n)
    place = torch.stack([torch.stack([scale, zero, side[:, 0]], 1), torch.stack([zero, scale, side[:, 1]], 1)], 1)
    pictures = _sample(photos, index, place)
    kind = torch.rand(n, generator=g)
    whole = _sample(photos, index, torch.eye(2, 3).mul(0.85).expand(n, 2, 3))
    tiles = whole.unflatten(3, (4, 16)).unflatten(2, (4, 16)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(n, 16, generator=g).argsort(1)
    tiles = (
        tiles[torch.arange(n)[:, None], order].view(n, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(whole.shape)
    )
    rough = functional.interpolate(torch.rand(n, 3, 8, 8, generator=g), (SMALL, SMALL), mode="bicubic").clamp(0, 1)
    haze = functional.interpolate(functional.avg_pool2d(whole, 16), (SMALL, SMALL), mode="bilinear")
    noise = whole * 0.25 + 0.75 * torch.rand(whole.shape, generator=g)
    for low, high, other in ((0.4, 0.6, tiles), (0.6, 0.7, rough), (0.7, 0.85, haze), (0.85, 0.95, noise)):
        pictures = torch.where(((kind >= low) & (kind < high))[:, None, None, None], other, pictures)
    upside = (kind >= 0.95)[:, None, None, None]
    return _toned(torch.where(upside, whole.flip(2), pictures), g)


def _sample(photos: Photos, index: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    grid = functional.affine_grid(place, [len(index), 3, 2 * SMALL, 2 * SMALL], align_corners=False)
    drawn = functional.grid_sample(photos.batch(index), grid, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(drawn, 2)


def _toned(pictures: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    n = len(pictures)
    gain = torch.empty(n, 1, 1, 1).uniform_(0.35, 1.3, generator=g)
    lift = torch.empty(n, 1, 1, 1).uniform_(-0.05, 0.35, generator=g) * (torch.rand(n, 1, 1, 1, generator=g) < 0.4)
    grey = torch.rand(n, 1, 1, 1, generator=g) < 0.25
    tint = torch.empty(n, 3, 1, 1).uniform_(0.75, 1.2, generator=g)
    pictures = torch.where(grey, pictures.mean(1, keepdim=True), pictures) * tint * gain + lift
    blurred = torch.rand(n, 1, 1, 1, generator=g) < 0.2
    soft = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.where(blurred, soft, pictures).clamp(0, 1)


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "face_check", 2e-3)
    parser.set_defaults(batch=64, measure_every=500)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    score, points = load_landmarks(data, photos, cache / "landmarks_train.npz")
    allowed, validation = (part[score[part] > 0.95] for part in split_validation(photos.person))
    net = FaceCheckNet(WIDTHS)
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=0.02, fused=True)
    recipe = FaceCheckRecipe(photos, points, (allowed, validation), args)
    facts = {"data_sha256": {"train": photos.digest}}
    train(args, facts, net, [optimiser], recipe)


if __name__ == "__main__":
    main()
