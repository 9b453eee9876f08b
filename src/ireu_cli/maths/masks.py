"""Turn scores into masks, and measure how far two masks agree."""

import math
from itertools import combinations

import torch
from torch import Tensor


def top_mask(score: Tensor, fraction: float) -> Tensor:
    """Keep the features with the highest scores.

    Args:
        score: float (d,).
        fraction: share k of the features to keep, in (0, 1]; at least one is kept.

    Returns:
        bool (d,) with max(1, round(k d)) entries set; ties go to the lower index, so the result is unique.
    """
    keep = max(1, math.floor(fraction * len(score) + 0.5))
    order = torch.argsort(score, descending=True, stable=True)
    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[order[:keep]] = True
    return mask


def mean_overlap(masks: Tensor) -> tuple[float, float] | None:
    """Mean and standard deviation, over pairs, of the share of one mask that is also in the other.

    Args:
        masks: bool (n, d), all of the same size; chance is size / d.

    Returns:
        None for fewer than two masks. The paper reports .7046 ± .0519 at chance .40 over ten swap partners.
    """
    if len(masks) < 2:
        return None
    shares = torch.tensor([float((a & b).sum()) / float(a.sum()) for a, b in combinations(masks, 2)])
    return float(shares.mean()), float(shares.std(correction=0))


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's rank correlation of two score vectors (d,); None if one of them is constant."""
    ranks = torch.stack([torch.argsort(torch.argsort(score)).double() for score in (first, second)])
    if first.max() == first.min() or second.max() == second.min():
        return None
    return float(torch.corrcoef(ranks)[0, 1])


def captured_energy(mask: Tensor, shifts: Tensor) -> float:
    """Share of the squared shift that lies on the mask.

    Args:
        mask: bool (d,).
        shifts: float (…, d), the absolute shifts; chance is size / d.
    """
    energy = shifts.double().square().reshape(-1, shifts.shape[-1]).sum(0)
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total > 0 else 0.0
