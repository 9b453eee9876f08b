"""Means with intervals, resampled over people: photos of one person are not independent evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean over all photos with its 95 % interval, and what it rests on."""

    value: float
    low: float | None
    high: float | None
    photos: int
    people: int


def estimate(groups: Sequence[Tensor], resamples: int, generator: torch.Generator) -> Estimate | None:
    """Mean over photos, percentile bootstrap over people.

    Args:
        groups: values (n_i,) a person; empty groups are passed over.
        resamples: number of bootstrap resamples.
        generator: source of the resampling.

    Returns:
        None without any value. With fewer than three people there is no interval: it would claim too much.
    """
    groups = [group.double() for group in groups if len(group)]
    if not groups:
        return None
    sums = torch.tensor([float(group.sum()) for group in groups], dtype=torch.float64)
    counts = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    value = float(sums.sum() / counts.sum())
    if len(groups) < 3:
        return Estimate(value, None, None, int(counts.sum()), len(groups))
    draws = torch.randint(len(groups), (resamples, len(groups)), generator=generator)
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, low, high, int(counts.sum()), len(groups))
