"""Train the ArcFace-type face encoder: ``train_face_encoder.py --data DIR --out DIR``. Started again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from face_encoder import Student, export
from faces import Photos, data_folder
from muon import optimisers
from runs import Material, identity_losses, load_material, train, training_arguments
from torch.nn import functional
from views import ALIGNED, aligned_frame, plain, render


class FaceEncoderRecipe:
    """Distance to the teacher's vector, contrast against other people, and the teacher's map."""

    def __init__(self, material: Material, batch: int, bf16: bool) -> None:
        self.weights = {"cosine": 1.0, "contrast": 0.2, "places": 0.5}
        self.material, self.batch, self.bf16, self.frame = material, batch, bf16, aligned_frame()

    def losses(self, student: Student, step: int) -> dict[str, torch.Tensor]:
        """The student sees the teacher's own picture."""
        views, lesson = self.material.bank.batch(step, self.batch)
        faces = render(self.material.train, views, self.frame, ALIGNED).mul_(2).sub_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            identity, places = student(faces.contiguous(memory_format=torch.channels_last))
        cosine, contrast = identity_losses(identity, lesson.identity, views.label)
        return {"cosine": cosine, "contrast": contrast, "places": functional.mse_loss(places.float(), lesson.places)}

    @torch.no_grad()
    def measure(self, student: Student) -> dict[str, Any]:
        """Figures of the embedding."""

        def embed(photos: Photos, index: torch.Tensor) -> dict[str, torch.Tensor]:
            faces = plain(photos, index, self.frame, ALIGNED).mul_(2).sub_(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                return {"embedding": student(faces.contiguous(memory_format=torch.channels_last))[0]}

        return self.material.measure(embed)

    def export(self, student: Student, folder: Path) -> None:
        """``face_encoder.onnx``."""
        export(student.encoder, folder / "face_encoder.onnx")


def main() -> None:
    """The command."""
    args = training_arguments(__doc__, "face_encoder", 2e-3).parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    material = load_material(data_folder(args.data), args.out, args.seed, args.threads)
    student = Student()
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(
        args,
        material.facts,
        student,
        optimisers(student, args.rate, 0.05),
        FaceEncoderRecipe(material, args.batch, args.precision == "bf16"),
    )


if __name__ == "__main__":
    main()
