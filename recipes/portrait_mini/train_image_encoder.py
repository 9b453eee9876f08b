"""Train the CLIP-type image encoder: ``train_image_encoder.py --data DIR --out DIR``. Started again, it goes on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from changes import WIDE, change, places, strength
from faces import Photos, data_folder
from image_encoder import CROP, PICTURE, SIZE, Student, export, patch_spots, patches, pick, places_loss
from muon import Muon
from runs import Ahead, Material, load_material, shown, step_generator, taught_losses, train, training_arguments
from teacher import Lesson
from torch.nn import functional
from views import centre_frame, render, spots


@dataclass(frozen=True)
class Drawn:
    """What a step sees: faces (n, 3, 96, 96), the shown patches, where faces are, the lesson and the people."""

    faces: torch.Tensor
    kept: torch.Tensor | None
    place: torch.Tensor
    lesson: Lesson
    label: torch.Tensor


class ImageEncoderRecipe:
    """Identity and appearance in the pooled output and in the penultimate tokens, the teacher's map in the tokens."""

    def __init__(self, material: Material, args: argparse.Namespace) -> None:
        self.material, self.batch, self.kept, self.patch = material, args.batch, args.kept, args.patch
        self.bf16 = args.precision == "bf16"
        self.frame = centre_frame(CROP)
        self.ahead = Ahead(self._draw)
        self.weights = {
            "cosine": 1.0,
            "contrast": 0.2,
            "token_cosine": 0.5,
            "token_contrast": 0.1,
            "places": 0.5,
            "picture": 1.0,
            "patch": 0.5,
        }

    def losses(self, student: Student, step: int) -> dict[str, torch.Tensor]:
        """The student sees what ``changes`` left of the face that the teachers saw in its place."""
        drawn = self.ahead(step)
        faces, kept, lesson = drawn.faces, drawn.kept, drawn.lesson
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            found = student(faces, kept)
        cosine, contrast = taught_losses(found["identity"], lesson, drawn.label)
        token_cosine, token_contrast = taught_losses(found["token_identity"], lesson, drawn.label)
        at = pick(patch_spots(student.size, drawn.place), kept)
        return {
            "cosine": cosine,
            "contrast": contrast,
            "token_cosine": token_cosine,
            "token_contrast": token_contrast,
            "places": places_loss(found["places"], lesson.places, at),
            "picture": functional.l1_loss(found["picture"], functional.adaptive_avg_pool2d(faces[::2], PICTURE)),
            "patch": functional.l1_loss(found["patch"], pick(patches(faces, student.size), kept)),
        }

    def _draw(self, step: int) -> Drawn:
        views, lesson = self.material.bank.batch(step, self.batch)
        g = step_generator(self.material.seed, step)
        far = strength(step * self.batch)
        place = places(self.batch, WIDE, g, far)
        where = spots(self.frame, place, self.batch, CROP)
        faces = shrunk(change(render(self.material.train, views, where), where, views.flip, g, far))
        return Drawn(faces, self._kept(len(faces), (SIZE // self.patch) ** 2, g), place, lesson, views.label)

    def _kept(self, count: int, all_patches: int, g: torch.Generator) -> torch.Tensor | None:
        if self.kept >= 1:
            return None
        return torch.rand(count, all_patches, generator=g).argsort(1)[:, : round(self.kept * all_patches)]

    @torch.no_grad()
    def measure(self, student: Student) -> dict[str, Any]:
        """Figures of what carries identity, of photos as they are and changed."""

        def embed(photos: Photos, index: torch.Tensor, changed: bool) -> dict[str, torch.Tensor]:
            faces = shrunk(shown(photos, index, self.frame, CROP, WIDE if changed else None))
            found = student(faces)
            return {name: found[name] for name in ("identity", "token_identity", "embeds", "late")}

        return self.material.measure(embed)

    def export(self, student: Student, folder: Path) -> None:
        """``export/``: the encoder in the ecosystem's layout."""
        export(student, folder / "export")


def shrunk(faces: torch.Tensor) -> torch.Tensor:
    """Pixels (n, 3, 136, 136) in [0, 1] as the encoder's preprocessing scales them: (n, 3, 96, 96) in [-1, 1]."""
    small = functional.interpolate(faces, (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
    return small.clamp_(0, 1).mul_(2).sub_(1)


def build_optimisers(student: Student, kind: str, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the encoder's blocks and AdamW for the rest, or AdamW for all."""
    blocks = {id(p) for p in student.encoder.vision_model.encoder.parameters()}
    matrices = [p for p in student.parameters() if p.ndim == 2 and id(p) in blocks]
    decayed = [p for p in student.parameters() if p.ndim >= 2 and id(p) not in blocks]
    others = [p for p in student.parameters() if p.ndim < 2]
    optimisers: list[torch.optim.Optimizer] = []
    if kind == "muon":
        optimisers.append(Muon(matrices, rate, 0.05))
    else:
        decayed += matrices
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimisers.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True))
    return optimisers


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "image_encoder", 1e-3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--patch", type=int, default=16, help="side of a patch, which divides 96")
    parser.add_argument("--kept", type=float, default=0.5, help="share of the patches that the encoder is shown")
    parser.add_argument("--optimiser", choices=["muon", "adamw"], default="muon")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    material = load_material(data_folder(args.data), args.out, args.seed, args.threads)
    student = Student(args.width, args.blocks, args.patch)
    optimisers = build_optimisers(student, args.optimiser, args.rate)
    train(args, material.facts, student, optimisers, ImageEncoderRecipe(material, args))


if __name__ == "__main__":
    main()
