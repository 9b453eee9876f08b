"""Identity as a training signal: does the one-step estimate of a picture show the person of its photo?"""

from __future__ import annotations

import torch
from conditions import Conditions
from diffusers import AutoencoderTiny
from scenes import TONES, VIEWS, Scene
from torch.nn import functional
from views import ALIGNED, aligned_frame

from ireu_cli.models.face_net import FaceNet

LATEST = 600  # of 1000 steps; earlier estimates are hardly a face


class Likeness:
    """Asks the trained face encoder, with gradients to the estimate."""

    def __init__(self, net: FaceNet, known: Conditions, vae: AutoencoderTiny) -> None:
        self.net, self.known, self.vae = net.eval().requires_grad_(False), known, vae
        self.aligned = torch.cat([aligned_frame(), torch.tensor([[0.0, 0.0, 1.0]])])

    def usable(self, scenes: list[Scene], t: torch.Tensor) -> torch.Tensor:
        """Which of a batch can be asked about (n,) bool; a picture in another tone need not look like the photo."""
        return (t < LATEST) & torch.tensor([not any(e in TONES for e in s.edits) for s in scenes])

    def __call__(self, scenes: list[Scene], latents: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Scenes, estimates of their latents (n, 8, 14, 14), weights (n,) -> weighted mean of 1 - cosine."""
        pictures = self.vae.decoder(latents).float().clamp(-1, 1)
        places = torch.stack([self.place(scene) for scene in scenes])
        grid = functional.affine_grid(places, [len(scenes), 3, ALIGNED, ALIGNED], align_corners=False)
        found = self.net(functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False))
        truth = self.known.batch([s.photo * VIEWS + int(s.flip) for s in scenes])
        cosine = (functional.normalize(found.float(), dim=1) * truth).sum(1)
        return ((1 - cosine) * share).sum() / share.sum().clamp_min(1e-3)

    def place(self, scene: Scene) -> torch.Tensor:
        """From the recogniser's template to the picture (2, 3); a mirrored picture shows the mirrored face."""
        frame = torch.cat([scene.frame, torch.tensor([[0.0, 0.0, 1.0]])])
        mirror = torch.diag(torch.tensor([-1.0 if scene.flip else 1.0, 1.0, 1.0]))
        place: torch.Tensor = torch.linalg.inv(frame) @ self.aligned @ mirror
        return place[:2]
