"""What the frozen encoders say of each photo, in several views, computed once: the generators' conditions."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from faces import Photos
from image_encoder import CROP, SIZE
from numpy.typing import NDArray
from scenes import VIEWS
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection
from views import ALIGNED, aligned_frame, centre_frame

CHUNK = 64
View = Callable[[torch.Tensor, int], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Conditions:
    """Features (photos x views, …) float16, and the null features that guidance starts from."""

    features: NDArray[np.float16]
    null: torch.Tensor

    def batch(self, rows: list[int]) -> torch.Tensor:
        """Rows of photo x VIEWS + view -> float32 (n, …)."""
        return torch.from_numpy(self.features[rows].astype(np.float32))


def view_pixels(photos: Photos, index: torch.Tensor, view: int, frame: torch.Tensor, size: int) -> torch.Tensor:
    """One of the views of photos -> (n, 3, size, size) in [-1, 1]: odd views mirrored, the upper two shifted, toned."""
    places, tones = [], []
    for photo in index.tolist():
        g = torch.Generator().manual_seed(photo * VIEWS + view)
        scale, angle, x, y, gamma = torch.randn(5, generator=g).clamp(-2, 2).tolist() if view >= 2 else [0.0] * 5
        turn, grow = math.radians(2 * angle), math.exp(0.03 * scale)
        flip = -1 if view % 2 else 1
        cos, sin = grow * math.cos(turn), grow * math.sin(turn)
        places.append([[flip * cos, -sin, 0.02 * x], [flip * sin, cos, 0.02 * y], [0.0, 0.0, 1.0]])
        tones.append(math.exp(0.12 * gamma))
    inner = torch.cat([frame, torch.tensor([[0.0, 0.0, 1.0]])])
    grid = functional.affine_grid(
        (torch.tensor(places) @ inner)[:, :2], [len(index), 3, size, size], align_corners=False
    )
    pixels = functional.grid_sample(photos.batch(index), grid, padding_mode="border", align_corners=False)
    return pixels.clamp_(1e-3, 1).pow_(torch.tensor(tones)[:, None, None, None]).mul_(2).sub_(1)


def encoder_conditions(folder: Path, kind: str, photos: Photos, cache: Path) -> Conditions:
    """Conditions from a CLIP-type encoder: ``base`` reads image_embeds, ``plus`` the penultimate tokens.

    Both are computed in one pass, as generators of both kinds are going to ask for them. ``deep`` reads the tokens that
    enter five blocks spread over the encoder, and the pooled vector, as PuLID reads EVA-CLIP.
    """
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    frame = centre_frame(CROP)

    @torch.no_grad()
    def read(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found: Any = encoder.eval()(pixels, output_hidden_states=True)
        if kind == "deep":
            depths = [found.hidden_states[block] for block in depth_blocks(len(found.hidden_states) - 1)]
            pooled = encoder.vision_model.post_layernorm(found.last_hidden_state[:, 0])
            return {"deep": torch.cat([*depths, pooled[:, None]], 1).float()}
        return {"base": found.image_embeds.float(), "plus": found.hidden_states[-2].float()}

    def view(index: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
        return read(view_pixels(photos, index, number, frame, SIZE))

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    empty = read(torch.zeros(1, 3, SIZE, SIZE))
    files = {name: (cache / f"{name}-{digest}.npy", x.shape[1:]) for name, x in empty.items()}
    null = torch.zeros_like(empty["base"]) if kind == "base" else empty[kind]
    return Conditions(_kept(files, len(photos.person), view)[kind], null)


def depth_blocks(blocks: int) -> list[int]:
    """The blocks before which ``deep`` reads: 4, 8, 12, 16, 20 of 24, and likewise of other numbers."""
    return [blocks * part // 6 for part in range(1, 6)]


def face_conditions(file: Path, photos: Photos, cache: Path) -> Conditions:
    """Conditions from an ArcFace-type encoder in ONNX: its unit vector."""
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    name, frame = session.get_inputs()[0].name, aligned_frame()

    def view(index: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
        found = session.run(None, {name: view_pixels(photos, index, number, frame, ALIGNED).numpy()})[0]
        return {"faceid": functional.normalize(torch.from_numpy(found), dim=1)}

    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    files = {"faceid": (cache / f"faceid-{digest}.npy", torch.Size([512]))}
    return Conditions(_kept(files, len(photos.person), view)["faceid"], torch.zeros(1, 512))


def _kept(files: dict[str, tuple[Path, torch.Size]], photos: int, view: View) -> dict[str, NDArray[np.float16]]:
    """Compute what is missing, all files in one pass; map the results."""
    if not all(file.exists() for file, _ in files.values()):
        parts = {}
        for name, (file, shape) in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.stem}.{os.getpid()}.part.npy")
            parts[name] = (
                part,
                np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(photos, VIEWS, *shape)),
            )
        for index in torch.split(torch.arange(photos), CHUNK):
            for number in range(VIEWS):
                for name, found in view(index, number).items():
                    parts[name][1][index[0] : index[-1] + 1, number] = found.half().numpy()
        for name, (part, held) in parts.items():
            held.flush()
            part.replace(files[name][0])
    return {name: np.load(file, mmap_mode="r").reshape(photos * VIEWS, *shape) for name, (file, shape) in files.items()}
