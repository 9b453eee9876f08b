"""What the generators learn from: a photo, edited and captioned, as latents, and which view of whom describes it.

Like the views of the encoders, a scene follows from the seed and its number alone. A shard of scenes is drawn and
encoded by the autoencoder once and kept for every run; after ``SHARDS`` shards the scenes come round again.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import caption
from diffusers import AutoencoderTiny
from faces import SIDE, Photos, split_validation
from landmarks import load_landmarks
from torch.nn import functional

from ireu_cli.maths.images.edits import FACING, yaw

SCENES, SHARDS = 2048, 24
PICTURE, LATENT = 112, 14
FRAMES = {"plain": 136.0, "close-up": 104.0, "wide": 160.0}
TONES = ("dark", "bright", "black and white", "sepia", "blurred")
BACKGROUNDS = {"blue": (0.15, 0.3, 0.85), "green": (0.15, 0.65, 0.25), "red": (0.8, 0.15, 0.15)}
FEATURES, REACH = 3.0, 0.15  # how much more eyes, nose and mouth count than the rest, and how far around them
VIEWS = 4  # of each photo, for the encoder: (as it is, shifted and toned) x (as it is, mirrored)


@dataclass(frozen=True)
class Scene:
    """One picture to draw and what is said about it."""

    photo: int
    flip: bool
    edits: list[str]
    caption: str
    frame: torch.Tensor  # (2, 3), from the picture to the photo, both in [-1, 1]
    shown: int  # the photo that the encoder sees: the same one, or another of the same person
    view: int  # which of its views


class Scenes:
    """Draws scenes from the photos of the people who may be trained on."""

    def __init__(self, photos: Photos, allowed: torch.Tensor, points: torch.Tensor, seed: int) -> None:
        self.photos, self.allowed, self.seed = photos, allowed, seed
        self.points = points
        self.yaw = torch.tensor([yaw(p.numpy()) for p in points])
        self.of_person: dict[int, list[int]] = {}
        for photo in allowed.tolist():
            self.of_person.setdefault(int(photos.person[photo]), []).append(photo)

    def scene(self, number: int) -> Scene:
        """The scene of that number."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        u = torch.rand(12, generator=g).tolist()
        photo = int(self.allowed[int(u[0] * len(self.allowed))])
        flip = u[1] < 0.5
        shown = photo
        others = [p for p in self.of_person[int(self.photos.person[photo])] if p != photo]
        if others and u[2] < 0.25:
            shown = others[int(u[3] * len(others))]
        framing = "close-up" if u[4] < 0.1 else "wide" if u[4] < 0.25 else "plain"
        edits = [] if framing == "plain" else [framing]
        if u[5] < 0.35:
            edits.append(TONES[int(u[5] / 0.35 * len(TONES))])
        if u[6] < 0.12:
            edits.append(f"{list(BACKGROUNDS)[int(u[6] / 0.12 * 3)]} background")
        turned = float(self.yaw[photo]) * (-1 if flip else 1)
        # Where the encoder's view may show another direction than the picture, the caption has to say which.
        mirrored = flip
        if abs(turned) > FACING and (shown != photo or u[7] < 0.5):
            edits.append("facing left" if turned < 0 else "facing right")
            mirrored = u[8] < 0.5
        view = 2 * int(u[9] < 0.5) + int(mirrored)
        frame = _frame(FRAMES[framing], flip, g)
        return Scene(photo, flip, edits, caption(edits, g), frame, shown, view)

    def weights(self, scenes: list[Scene]) -> torch.Tensor:
        """How much each latent of scenes counts -> (n, 1, 14, 14), mean 1 in each: a face is known by a few of them."""
        frames = torch.stack([s.frame for s in scenes])
        points = (self.points[[s.photo for s in scenes]] + 0.5) * 2 / SIDE - 1
        points = (points - frames[:, None, :, 2]) / frames.diagonal(dim1=1, dim2=2)[:, None]
        line = (torch.arange(LATENT) + 0.5) * 2 / LATENT - 1
        cells = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, -1, 1, 2)
        near = (-(cells - points[:, None]).square().sum(-1) / (2 * REACH**2)).exp().amax(2)
        counted = 1 + FEATURES * near
        return (counted / counted.mean(1, keepdim=True)).view(-1, 1, LATENT, LATENT)

    def picture(self, scenes: list[Scene]) -> torch.Tensor:
        """Draw scenes -> (n, 3, 112, 112) in [0, 1]."""
        pixels = self.photos.batch(torch.tensor([s.photo for s in scenes]))
        places = torch.stack([s.frame for s in scenes])
        grid = functional.affine_grid(places, [len(scenes), 3, PICTURE, PICTURE], align_corners=False)
        drawn = functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
        drawn = drawn.clamp_(0, 1)
        for i, scene in enumerate(scenes):
            for edit in scene.edits:
                if edit.endswith(" background"):
                    drawn[i] = _before(drawn[i], BACKGROUNDS[edit.split()[0]], grid[i])
            for edit in scene.edits:
                if edit in TONES:
                    drawn[i] = toned(drawn[i], edit)
        return drawn


def _frame(crop: float, flip: bool, g: torch.Generator) -> torch.Tensor:
    scale = crop / SIDE * math.exp(float(torch.randn((), generator=g).clamp(-2, 2)) * 0.02)
    x, y = (torch.randn(2, generator=g).clamp(-2, 2) * 0.01).tolist()
    return torch.tensor([[-scale if flip else scale, 0.0, x], [0.0, scale, y]])


def toned(picture: torch.Tensor, tone: str) -> torch.Tensor:
    """(3, h, w) in [0, 1] -> the same in that tone."""
    grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    if tone == "dark":
        return picture * 0.42
    if tone == "bright":
        return 1 - (1 - picture) * 0.5
    if tone == "black and white":
        return grey.expand_as(picture)
    if tone == "sepia":
        return (grey * torch.tensor([1.1, 0.92, 0.68])[:, None, None]).clamp(0, 1)
    x = torch.arange(-6.0, 7.0)
    kernel = torch.exp(-(x**2) / (2 * 2.2**2))
    kernel = (kernel / kernel.sum())[None, None]
    soft = functional.pad(picture[:, None], (6, 6, 6, 6), mode="replicate")
    soft = functional.conv2d(soft, kernel[..., None, :])
    return functional.conv2d(soft, kernel[..., None])[:, 0]


def _before(picture: torch.Tensor, colour: tuple[float, ...], grid: torch.Tensor) -> torch.Tensor:
    """Put the face before a wall of that colour: a soft oval of the photo, where heads are, stays as it is."""
    x, y = (grid[..., 0] + 0.0) / 0.72, (grid[..., 1] - 0.02) / 0.98
    outside = torch.sigmoid(((x**2 + y**2).sqrt() - 0.88) / 0.07) * 0.9
    light = 0.6 + 0.5 * picture.mean(0)
    return torch.lerp(picture, torch.tensor(colour)[:, None, None] * light, outside)


class SceneBank:
    """Shards of scenes with their latents, drawn on the first visit; another decoder leaves them valid."""

    def __init__(self, folder: Path, scenes: Scenes, vae: AutoencoderTiny) -> None:
        state = hashlib.sha256()
        for tensor in vae.encoder.state_dict().values():
            state.update(tensor.float().numpy().tobytes())
        key = hashlib.sha256(f"{scenes.photos.digest} {scenes.seed} {state.hexdigest()}".encode()).hexdigest()[:12]
        self.folder, self.scenes, self.vae = folder / key, scenes, vae
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held: tuple[int, list[Scene], torch.Tensor] | None = None

    def batch(self, step: int, size: int) -> tuple[list[Scene], torch.Tensor]:
        """Scenes and latents (size, 8, 14, 14) of ``step``; ``size`` must divide a shard.

        Each round goes through a shard's scenes in another order, so that batches differ between rounds.
        """
        start = step * size
        turn, place = divmod(start, SHARDS * SCENES)
        number, row = divmod(place, SCENES)
        if self._held is None or self._held[0] != number:
            self._held = (number, *self._shard(number))
        order = torch.randperm(SCENES, generator=torch.Generator().manual_seed(turn))[row : row + size]
        return [self._held[1][i] for i in order.tolist()], self._held[2][order].float()

    def _shard(self, number: int) -> tuple[list[Scene], torch.Tensor]:
        scenes = [self.scenes.scene(number * SCENES + i) for i in range(SCENES)]
        file = self.folder / f"{number:06d}.npy"
        if not file.exists():
            part = file.with_name(f"{file.stem}.{os.getpid()}.part.npy")
            np.save(part, torch.cat([self._encode(scenes[i : i + 64]) for i in range(0, SCENES, 64)]).half().numpy())
            part.replace(file)
        return scenes, torch.from_numpy(np.load(file))

    @torch.no_grad()
    def _encode(self, scenes: list[Scene]) -> torch.Tensor:
        pictures = self.scenes.picture(scenes).mul_(2).sub_(1)
        latents: torch.Tensor = self.vae.encoder(pictures.contiguous(memory_format=torch.channels_last))
        return latents


def open_scenes(data: Path, cache: Path, photos: Photos, vae: AutoencoderTiny) -> SceneBank:
    """The scenes that generators and the decoder learn from, of the photos of ``train`` that surely show a face."""
    score, points = load_landmarks(data, photos, cache / "landmarks_train.npz")
    allowed = split_validation(photos.person)[0]
    return SceneBank(cache / "scenes", Scenes(photos, allowed[score[allowed] > 0.9], points, 0), vae)
