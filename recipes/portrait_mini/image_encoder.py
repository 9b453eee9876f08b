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
from views import aligned_frame, centre_frame, square

SIZE, CROP = 96, 136
IDENTITY = 1024  # what two teachers say, 512 numbers each
PICTURE = 32


def build_encoder(width: int, blocks: int, patch: int) -> CLIPVisionModelWithProjection:
    """A fresh encoder; heads of 32 channels."""
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=patch,
        projection_dim=width,
        hidden_act="gelu",
    )
    config._attn_implementation = "eager"  # faster than the fused kernel for so few tokens
    encoder = CLIPVisionModelWithProjection(config)
    nn.init.orthogonal_(encoder.visual_projection.weight)
    return encoder


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

    def __init__(self, width: int, blocks: int, patch: int) -> None:
        super().__init__()
        self.size = patch
        self.encoder = build_encoder(width, blocks, patch)
        self.identity = nn.Linear(width, IDENTITY)
        self.token_identity = TokenIdentity(width)
        self.picture = Picture(width)
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * patch * patch))
        self.places = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 100))
        nn.init.normal_(self.token_identity.query, std=0.02)

    def forward(self, faces: torch.Tensor, kept: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Faces (n, 3, 96, 96) in [-1, 1] -> everything the losses read.

        ``kept`` (n, k) are the patches that the encoder is shown, all where it is none; token outputs follow it.
        """
        states = self.states(faces, kept)
        tokens = states[-2]
        embeds = self.encoder.visual_projection(self.encoder.vision_model.post_layernorm(states[-1][:, 0]))
        return {
            "embeds": embeds,
            "late": states[-4][:, 0],
            "identity": self.identity(embeds),
            "token_identity": self.token_identity(tokens),
            "picture": self.picture(embeds[::2]),  # every other one: the decoder is a tenth of the work
            "patch": self.patch(tokens[:, 1:]),
            "places": self.places(tokens[:, 1:]),
        }

    def states(self, faces: torch.Tensor, kept: torch.Tensor | None) -> list[torch.Tensor]:
        """What enters each block, and what leaves the last: (n, 1 + k, width) each."""
        tower = self.encoder.vision_model
        tokens = tower.embeddings(faces)
        if kept is not None:
            rows = functional.pad(kept + 1, (1, 0))
            tokens = tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[-1]))
        states = [tower.pre_layrnorm(tokens)]
        for block in tower.encoder.layers:
            states.append(block(states[-1], attention_mask=None))
        return states


def patches(faces: torch.Tensor, patch: int) -> torch.Tensor:
    """(n, 3, 96, 96) -> (n, patches, 3 * patch * patch), in the order of the encoder's tokens."""
    return functional.unfold(faces, patch, stride=patch).transpose(1, 2)


def pick(rows: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """The rows (n, k, ...) of the kept patches out of (n, patches, ...)."""
    if kept is None:
        return rows
    return rows.gather(1, kept[..., None].expand(-1, -1, rows.shape[-1]))


def patch_spots(patch: int, place: torch.Tensor) -> torch.Tensor:
    """Where the patches' centres of faces moved by ``place`` (n, 3, 3) lie in the teacher's map -> (n, patches, 2).

    In [-1, 1]; beyond that lies what the teacher did not look at.
    """
    grid = SIZE // patch
    rows = (torch.arange(grid) + 0.5) * 2 / grid - 1
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten(), torch.ones(grid * grid)])
    inside: torch.Tensor = torch.linalg.inv(square(aligned_frame())) @ place @ square(centre_frame(CROP)) @ centres
    return inside[:, :2].transpose(1, 2)


def places_loss(found: torch.Tensor, places: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """Squared distance of (n, k, 100) to the teacher's map (n, 100, 7, 7) at ``spots`` (n, k, 2), where it has one."""
    taught = functional.grid_sample(places, spots[:, :, None], padding_mode="border", align_corners=False)
    seen = (spots.abs() < 1).all(-1)
    distance = (found.float() - taught[..., 0].transpose(1, 2)).square().mean(-1)
    return (distance * seen).sum() / seen.sum().clamp_min(1)


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
