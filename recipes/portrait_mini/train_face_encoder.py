"""Train the ArcFace-type face encoder: ``train_face_encoder.py --data DIR --out DIR``. Started again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from changes import ALIGNED_FACE, change, places, strength
from face_encoder import Student, export
from faces import Photos, data_folder
from muon import optimisers
from runs import Material, identity_losses, load_material, shown, step_generator, train, training_arguments
from torch.nn import functional
from views import ALIGNED, aligned_frame, render, spots


class FaceEncoderRecipe:
    """Distance to the first teacher's vector, contrast against other people, and that teacher's map."""

    def __init__(self, material: Material, batch: int, bf16: bool) -> None:
        self.weights = {"cosine": 1.0, "contrast": 0.2, "places": 0.5}
        self.material, self.batch, self.bf16, self.frame = material, batch, bf16, aligned_frame()

    def losses(self, student: Student, step: int) -> dict[str, torch.Tensor]:
        """The student sees what ``changes`` left of the face that the teacher saw in its place."""
        views, lesson = self.material.bank.batch(step, self.batch)
        g = step_generator(self.material.seed, step)
        far = strength(step * self.batch)
        where = spots(self.frame, places(self.batch, ALIGNED_FACE, g, far), self.batch, ALIGNED)
        faces = change(render(self.material.train, views, where), where, views.flip, g, far).mul_(2).sub_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            identity, found = student(faces.contiguous(memory_format=torch.channels_last))
        cosine, contrast = identity_losses(identity, lesson.identity, views.label)
        return {"cosine": cosine, "contrast": contrast, "places": functional.mse_loss(found.float(), lesson.places)}

    @torch.no_grad()
    def measure(self, student: Student) -> dict[str, Any]:
        """Figures of the embedding, of photos as they are and changed."""

        def embed(photos: Photos, index: torch.Tensor, changed: bool) -> dict[str, torch.Tensor]:
            reach = ALIGNED_FACE if changed else None
            faces = shown(photos, index, self.frame, ALIGNED, reach).mul_(2).sub_(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                return {"identity": student(faces.contiguous(memory_format=torch.channels_last))[0]}

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
