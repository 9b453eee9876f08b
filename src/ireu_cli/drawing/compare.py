"""Compare pictures of one person: before with after, and both with what the prompt asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.drawing.shots import Shot
from ireu_cli.maths.images.differences import psnr, ssim
from ireu_cli.maths.images.edits import Landmarks, adheres
from ireu_cli.values import RgbImage


def likeness(before: Sequence[RgbImage], after: Sequence[RgbImage]) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM of each pair of pictures, all of one size: float64 (n,) each."""
    pixels = [
        torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1) for p in side]) / 255 for side in (before, after)
    ]
    return psnr(pixels[0], pixels[1]), ssim(pixels[0], pixels[1])


def adherence(shots: Sequence[Shot], pictures: Sequence[RgbImage], landmarks: Sequence[Landmarks]) -> Tensor:
    """Say whether each picture shows the edit in its prompt.

    Args:
        shots: what each picture was to show; for each edit, they include the same photo and noise without it.
        pictures: the drawn pictures.
        landmarks: the position of the face in each picture, None without a face.

    Returns:
        float64 (n,): 1 or 0; NaN without an edit, or if it cannot be measured.
    """
    plain = {(shot.photo, shot.seed): number for number, shot in enumerate(shots) if shot.edit is None}
    answers = []
    for shot, picture, points in zip(shots, pictures, landmarks, strict=True):
        answer = None
        if shot.edit is not None:
            base = plain[shot.photo, shot.seed]
            answer = adheres(shot.edit, picture, pictures[base], points, landmarks[base])
        answers.append(float("nan") if answer is None else float(answer))
    return torch.tensor(answers, dtype=torch.float64)
