"""What gates behind a network do to one vector: the same as the operators that `onnx_gates` appends."""

import torch
from torch import Tensor

_TINY = 1e-6


def through_gates(
    vectors: Tensor, weights: Tensor, thresholds: Tensor, changes: Tensor, rise: float
) -> tuple[Tensor, Tensor]:
    """Pass vectors through gates; where none opens, a vector keeps every bit.

    With v a vector and u = v / |v|, gate i opens by r_i = (w_i·u - t_i) / rise, held between 0 and 1. The result is
    v + |v| Σ r_i δ_i, scaled to the length of v.

    Args:
        vectors: float (n, d), of any length.
        weights: w, float (people, d).
        thresholds: t, float (people,).
        changes: δ, float (people, d).
        rise: the range of scores from no change to the whole change, above zero.

    Returns:
        The vectors, in their own dtype, and whether a gate opened for each of them, bool (n,). They are computed in the
        dtype of the weights.
    """
    given = vectors.to(weights.dtype)
    length = given.norm(dim=1, keepdim=True)
    scores = given / length.clamp(min=_TINY) @ weights.T
    responses = ((scores - thresholds) / rise).clamp(0, 1)
    moved = given + length * (responses @ changes)
    moved = moved * (length.clamp(min=_TINY) / moved.norm(dim=1, keepdim=True).clamp(min=_TINY))
    is_open = (responses > 0).any(dim=1)
    return torch.where(is_open[:, None], moved.to(vectors.dtype), vectors), is_open
