"""Identity as a training signal: does the one-step estimate of a picture show the person of its photo?"""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny
from graph import Graph
from scenes import TONES, Scene
from torch.nn import functional
from views import ALIGNED, aligned_frame

CLEAR = 250  # of 1000 steps; with less noise than that the picture itself says who it is, and not the condition


class Likeness:
    """Asks the teacher of the encoders, with gradients to the estimate."""

    def __init__(self, teacher: Graph, truth: torch.Tensor, vae: AutoencoderTiny) -> None:
        """``truth`` (photos, 512): the teacher's unit vectors of the photos."""
        self.teacher, self.truth, self.vae = teacher, truth, vae
        self.aligned = torch.cat([aligned_frame(), torch.tensor([[0.0, 0.0, 1.0]])])

    def usable(self, scenes: list[Scene], t: torch.Tensor) -> torch.Tensor:
        """Which of a batch can be asked about (n,) bool; a picture in another tone need not look like the photo."""
        return (t >= CLEAR) & torch.tensor([not any(e in TONES for e in s.edits) for s in scenes])

    def __call__(self, scenes: list[Scene], latents: torch.Tensor) -> torch.Tensor:
        """Scenes and estimates of their latents (n, 8, 14, 14) -> mean of 1 - cosine."""
        pictures = self.vae.decoder(latents).float().clamp(-1, 1)
        places = torch.stack([self.place(scene) for scene in scenes])
        grid = functional.affine_grid(places, [len(scenes), 3, ALIGNED, ALIGNED], align_corners=False)
        faces = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        found = self.teacher(faces.add(1).mul(127.5))
        cosine = (functional.normalize(found.float(), dim=1) * self.truth[[s.photo for s in scenes]]).sum(1)
        return (1 - cosine).mean()

    def place(self, scene: Scene) -> torch.Tensor:
        """From the template to the picture (2, 3), through the photo, so that a mirrored one is turned back."""
        frame = torch.cat([scene.frame, torch.tensor([[0.0, 0.0, 1.0]])])
        place: torch.Tensor = torch.linalg.inv(frame) @ self.aligned
        return place[:2]
