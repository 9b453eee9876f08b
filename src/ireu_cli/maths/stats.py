"""Means with intervals that are resampled over people, because photos of one person are not independent evidence."""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CELLS = 250_000
"""The most draws in memory at once: resamples times people may be many more."""


@dataclass(frozen=True)
class Estimate:
    """A mean over all photos with its 95 % interval, and the numbers behind it."""

    value: float
    low: float | None
    high: float | None
    photos: int
    people: int


def estimate(groups: Iterable[Tensor], resamples: int, generator: torch.Generator) -> Estimate | None:
    """Mean over photos, percentile bootstrap over people.

    Args:
        groups: values (n_i,) a person; empty groups are skipped.
        resamples: number of bootstrap resamples.
        generator: source of the resampling.

    Returns:
        None without any value. With fewer than three people there is no interval, because it would claim too much.
    """
    found = array("d"), array("d")
    for group in groups:
        if len(group):
            found[0].append(float(group.double().sum()))
            found[1].append(len(group))
    people = len(found[0])
    if not people:
        return None
    sums, counts = (torch.frombuffer(column, dtype=torch.float64) for column in found)
    value = float(sums.sum() / counts.sum())
    if people < 3:
        return Estimate(value, None, None, int(counts.sum()), people)
    # Allocate first: small results between large freed blocks would make these too short for the next ones.
    means = torch.empty(resamples, dtype=torch.float64)
    done = 0
    for draws in _draws(people, resamples, generator):
        means[done : done + len(draws)] = sums[draws].sum(1) / counts[draws].sum(1)
        done += len(draws)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, low, high, int(counts.sum()), people)


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; without bounds if there is too little to resample."""

    value: float
    low: float | None
    high: float | None


def resampled_weights(count: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each of `count` independent things counts in a bootstrap: float64 (1 + resamples, count).

    The first row is the sample itself, all ones; with fewer than three things it is the only row. If there may be many
    things, use `weights_in_parts`.
    """
    return torch.cat(list(weights_in_parts(count, resamples, generator)))


def weights_in_parts(count: int, resamples: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The rows of `resampled_weights`, some at a time, so that memory does not grow with resamples times things."""
    yield torch.ones(1, count, dtype=torch.float64)
    if count < 3:
        return
    for draws in _draws(count, resamples, generator):
        counts = torch.zeros(draws.shape, dtype=torch.float64)
        yield counts.scatter_add_(1, draws, torch.ones(draws.shape, dtype=torch.float64))


def _draws(count: int, resamples: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Numbers below `count`, int64 (rows, count), `resamples` rows in all; the parts do not change them."""
    step = max(1, _CELLS // count)
    for start in range(0, resamples, step):
        yield torch.randint(count, (min(step, resamples - start), count), generator=generator)


def interval(values: Tensor) -> Interval | None:
    """Percentile interval of a figure (1 + resamples,), computed with each row of `resampled_weights`.

    Returns:
        None if the figure itself is NaN. A bound is None if resamples without a figure reach it: NaNs count as beyond
        both ends, so that they widen the interval and never narrow it.
    """
    value, samples = float(values[0]), values[1:]
    if math.isnan(value):
        return None
    if not len(samples):
        return Interval(value, None, None)
    unknown = torch.isnan(samples)
    ends = [samples.masked_fill(unknown, end).quantile(q) for end, q in ((-torch.inf, 0.025), (torch.inf, 0.975))]
    low, high = (float(end) if bool(torch.isfinite(end)) else None for end in ends)
    return Interval(value, low, high)
