"""Differences between two pictures, by the definitions of torchmetrics."""

import torch
from torch import Tensor

PSNR_CEILING = 60.0
"""The decibels at which two pictures count as the same: rounding to 8 bits alone gives 59."""


def psnr(before: Tensor, after: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB.

    Args:
        before: float (n, 3, height, width) in [0, 1].
        after: same shape.

    Returns:
        float64 (n,), at most `PSNR_CEILING`, which is the value of identical pictures.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(after.double(), before.double(), data_range=1.0, reduction="none", dim=(1, 2, 3))
    return torch.as_tensor(values).reshape(-1).clamp(max=PSNR_CEILING)


def ssim(before: Tensor, after: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5), for float (n, 3, h, w): float64 (n,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(after.double(), before.double(), data_range=1.0, reduction="none")
    return torch.as_tensor(found).reshape(-1)
