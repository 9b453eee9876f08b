"""The paper's losses (IREU, section "Unlearn"), in its symbols."""

import torch
from torch import Tensor


def virtual_identity(z: Tensor, delta_z: Tensor, mask: Tensor, alpha: float, sign: float) -> Tensor:
    """Return z̃ = z₋ + sign · α (M ⊙ Δz), with Δz = e(x₋) − e(x_f).

    Args:
        z: e(x₋), float (n, …, d).
        delta_z: Δz, same shape.
        mask: M, bool (d,) or (n, d) with one mask a photo; shared by all tokens.
        alpha: α.
        sign: +1 moves away from the swapped face, as in the paper; −1 moves toward it.
    """
    if mask.ndim == 2 and z.ndim == 3:
        mask = mask[:, None, :]
    return z + sign * alpha * (mask * delta_z)


def mean_distance(z: Tensor, target: Tensor) -> Tensor:
    """‖z − target‖₂ of each photo (over tokens and features together), averaged over photos: L_f and L_r."""
    distances: Tensor = torch.linalg.vector_norm((z - target).flatten(1), dim=1)
    return distances.mean()
