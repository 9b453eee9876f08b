"""The CLIP-type image encoder of portrait-mini and the heads that teach it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from faces import SIDE
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from views import aligned_frame, centre_frame

SIZE, PATCH, CROP = 96, 16, 136
GRID = SIZE // PATCH
IDENTITY = 512
PICTURE = 32


def build_encoder(width: int, blocks: int) -> CLIPVisionModelWithProjection:
    """A fresh encoder; heads of 32 channels."""
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=width,
        hidden_act="gelu",
    )
    config._attn_implementation = "eager"  # faster than the fused kernel for so few tokens
    encoder = CLIPVisionModelWithProjection(config)
    nn.init.orthogonal_(encoder.visual_projection.weight)
    return encoder


@torch.no_grad()
def start_from(encoder: CLIPVisionModelWithProjection, folder: Path) -> None:
    """Take over a trained encoder whose blocks have the same shapes; the grid of its positions is resized."""
    held = CLIPVisionModelWithProjection.from_pretrained(folder).state_dict()
    name = "vision_model.embeddings.position_embedding.weight"
    positions = held[name]
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].T.reshape(1, -1, side, side)
    grid = functional.interpolate(grid, (GRID, GRID), mode="bicubic", align_corners=False)[0].flatten(1).T
    encoder.load_state_dict({**held, name: torch.cat([positions[:1], grid])})


class Picture(nn.Module):
    """(n, width) -> (n, 3, 32, 32): a small decoder, so that appearance has to be in the vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.start = nn.Linear(width, 128 * 16)
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in ((128, 96), (96, 64), (64, 32)))
        self.end = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """-> pixels in [-1, 1], not clamped."""
        x: torch.Tensor = self.start(vector).view(-1, 128, 4, 4)
        for up in self.ups:
            x = functional.pixel_shuffle(functional.gelu(up(x)), 2)
        picture: torch.Tensor = self.end(x)
        return picture


class TokenIdentity(nn.Module):
    """Tokens (n, t, width) -> (n, 512): one learned query, as a resampler would look for identity among the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.zeros(4, width))
        self.out = nn.Linear(4 * width, IDENTITY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """-> (n, 512), not normalised."""
        x = self.norm(tokens)
        weight = torch.einsum("qw,ntw->nqt", self.query, x).mul(x.shape[-1] ** -0.5).softmax(-1)
        found: torch.Tensor = self.out((weight @ x).flatten(1))
        return found


class Student(nn.Module):
    """The encoder with its teaching heads."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.encoder = build_encoder(width, blocks)
        self.identity = nn.Linear(width, IDENTITY)
        self.token_identity = TokenIdentity(width)
        self.picture = Picture(width)
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * PATCH * PATCH))
        self.places = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 100))
        nn.init.normal_(self.token_identity.query, std=0.02)

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """Faces (n, 3, 96, 96) in [-1, 1] -> everything the losses read."""
        found = self.encoder(faces, output_hidden_states=True)
        tokens = found.hidden_states[-2]
        return {
            "identity": self.identity(found.image_embeds),
            "token_identity": self.token_identity(tokens),
            "picture": self.picture(found.image_embeds[::2]),  # every other one: the decoder is a tenth of the work
            "patch": self.patch(tokens[:, 1:]),
            "places": self.places(tokens[:, 1:]),
        }


def patches(faces: torch.Tensor) -> torch.Tensor:
    """(n, 3, 96, 96) -> (n, 36, 768), one row a patch, in the order of the encoder's tokens."""
    return functional.unfold(faces, PATCH, stride=PATCH).transpose(1, 2)


def places_grid() -> torch.Tensor:
    """Where the centre of each patch (36) lies in the teacher's aligned map -> (1, 36, 1, 2) for grid_sample."""
    rows = (torch.arange(GRID) + 0.5) * 2 / GRID - 1
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    bottom = torch.tensor([[0.0, 0.0, 1.0]])
    crop, aligned = (torch.cat([frame, bottom]) for frame in (centre_frame(CROP), aligned_frame()))
    spots = torch.stack([x.flatten(), y.flatten(), torch.ones(GRID * GRID)])
    inside: torch.Tensor = torch.linalg.inv(aligned) @ crop @ spots
    return inside[:2].T.reshape(1, -1, 1, 2)


def places_at_patches(places: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The teacher's map (n, 100, 7, 7) read at the patches -> (n, 36, 100)."""
    read = functional.grid_sample(
        places, grid.expand(len(places), -1, -1, -1), padding_mode="border", align_corners=False
    )
    return read[..., 0].transpose(1, 2)


def export(student: Student, folder: Path) -> None:
    """Write the encoder in the ecosystem's layout, with its preprocessing; the identity read-out lies beside it."""
    fresh = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    student.encoder.save_pretrained(fresh)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(SIDE * SIZE / CROP)},
        "do_center_crop": True,
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
        "do_convert_rgb": True,
    }
    (fresh / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")
    heads = {"identity": student.identity, "token_identity": student.token_identity}
    tensors = {f"{name}.{key}": x.contiguous() for name, head in heads.items() for key, x in head.state_dict().items()}
    save_file(tensors, fresh / "teaching_heads.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
