"""Directions along which tokens hardly vary, where something can be written that is read again."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def normalised(tokens: Tensor, norm: Any) -> Tensor:
    """Tokens (…, d) after the layer norm, without its weight and bias."""
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=norm.eps)


def quiet_directions(tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The directions along which normalised tokens (n, d) vary least, except their mean, which a layer norm removes.

    Returns:
        Directions (count, d) of length one, each with mean zero, the quietest first; and the tokens' mean (d,).
    """
    mean = tokens.mean(0)
    centred = tokens - mean
    _, vectors = torch.linalg.eigh((centred.T @ centred / len(tokens)).double())
    found = [vectors[:, i].float() - vectors[:, i].float().mean() for i in range(1, count + 1)]
    return torch.stack([vector / vector.norm() for vector in found]), mean
