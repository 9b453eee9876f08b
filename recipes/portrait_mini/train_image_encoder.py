"""Train the CLIP-type image encoder: ``train_image_encoder.py --data DIR --out DIR``. Started again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from faces import Photos, data_folder
from image_encoder import CROP, PICTURE, SIZE, Student, export, patches, places_at_patches, places_grid, start_from
from muon import Muon
from runs import Material, identity_losses, load_material, train, training_arguments
from torch.nn import functional
from views import centre_frame, plain, render


class ImageEncoderRecipe:
    """Identity and appearance in the pooled output and in the penultimate tokens, the teacher's map in the tokens."""

    def __init__(self, material: Material, batch: int, bf16: bool) -> None:
        self.material, self.batch, self.bf16, self.frame, self.grid = (
            material,
            batch,
            bf16,
            centre_frame(CROP),
            places_grid(),
        )
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
        """The student sees the centre of the view of which the teacher sees the aligned face."""
        views, lesson = self.material.bank.batch(step, self.batch)
        faces = render(self.material.train, views, self.frame, SIZE).mul_(2).sub_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            found = student(faces)
        cosine, contrast = identity_losses(found["identity"], lesson.identity, views.label)
        token_cosine, token_contrast = identity_losses(found["token_identity"], lesson.identity, views.label)
        return {
            "cosine": cosine,
            "contrast": contrast,
            "token_cosine": token_cosine,
            "token_contrast": token_contrast,
            "places": functional.mse_loss(found["places"].float(), places_at_patches(lesson.places, self.grid)),
            "picture": functional.l1_loss(
                found["picture"].float(), functional.adaptive_avg_pool2d(faces[::2], PICTURE)
            ),
            "patch": functional.l1_loss(found["patch"].float(), patches(faces)),
        }

    @torch.no_grad()
    def measure(self, student: Student) -> dict[str, Any]:
        """Figures of both read-outs of identity."""

        def embed(photos: Photos, index: torch.Tensor) -> dict[str, torch.Tensor]:
            faces = plain(photos, index, self.frame, SIZE).mul_(2).sub_(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                found = student(faces)
            return {name: found[name] for name in ("identity", "token_identity")}

        return self.material.measure(embed)

    def export(self, student: Student, folder: Path) -> None:
        """``export/``: the encoder in the ecosystem's layout."""
        export(student, folder / "export")


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
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--init", type=Path, help="folder of an encoder of the same width and depth to start from")
    parser.add_argument("--optimiser", choices=["muon", "adamw"], default="muon")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    material = load_material(data_folder(args.data), args.out, args.seed, args.threads)
    student = Student(args.width, args.blocks)
    if args.init is not None:
        start_from(student.encoder, args.init)
    optimisers = build_optimisers(student, args.optimiser, args.rate)
    train(args, material.facts, student, optimisers, ImageEncoderRecipe(material, args.batch, args.precision == "bf16"))


if __name__ == "__main__":
    main()
