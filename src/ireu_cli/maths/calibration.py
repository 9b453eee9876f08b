"""Measure how well a recogniser tells people apart, and from which similarity two photos count as one person.

Impostor scores are the similarities of all pairs of photos of two people, genuine scores those of all pairs of photos
of one person. Pairs share photos and people, so intervals come from resampling people (Bolle et al. 2004, "Error
analysis of pattern recognition systems: the subsets bootstrap"). A pair of two people counts as often as the product of
their numbers of draws, and a pair of photos of one person as often as the person. A person who is drawn twice is never
compared with themselves as if they were two people.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.stats import Interval, interval, weights_in_parts

MOST_PAIRS = 200_000
"""The most pairs; if there are more, they are sampled. At a false-match rate of 1e-4, 20 errors are left."""
ERRORS = 20
"""The fewest impostor pairs above the threshold for a precise rate: within 44 % (1.96 / sqrt(20)) if independent."""
ALIKE = 1 - 1e-5
"""If all pairs are at least this similar, all vectors are the same, except for rounding."""
_NOT_FINITE = "it gives vectors that are not finite"
_TOP = 10_000
_CELLS = 4_000_000


@dataclass(frozen=True)
class Scores:
    """Similarities of pairs of photos, float64 (n,), and the people of each pair, int64 (n, 2)."""

    values: Tensor
    people: Tensor


@dataclass(frozen=True)
class CalibratedPoint:
    """The threshold and the true-accept rate at one false-match rate; see `resolves` for `resolved`."""

    false_match_rate: float
    threshold: Interval
    true_accept_rate: Interval
    resolved: bool


@dataclass(frozen=True)
class CalibrationResult:
    """A recogniser's results on people: its operating points, if it has any, and whether it may judge.

    `impostor` and `genuine` are the scores (n,) behind it, in no order; `needed` is the required true-accept rate.
    """

    photos: int
    people: int
    impostor: Tensor
    genuine: Tensor
    points: tuple[CalibratedPoint, ...]
    needed: float
    why_not: str | None

    @property
    def usable(self) -> bool:
        """Whether it may judge."""
        return self.why_not is None


def calibrate(
    people: Sequence[Tensor],
    rates: Sequence[float],
    min_accept_rate: float,
    at_rate: float,
    resamples: int,
    rng: torch.Generator,
) -> CalibrationResult:
    """Find thresholds and true-accept rates with 95 % intervals over people.

    Args:
        people: unit vectors (n_i, d) of each person's photos; people without photos are skipped.
        rates: false-match rates, each above 0 and below 1.
        min_accept_rate: true-accept rate that a recogniser has to reach at the false-match rate `at_rate`.
        at_rate: see there; it need not be one of `rates`.
        resamples: number of bootstrap resamples; with fewer than three people there are no intervals.
        rng: source of the resampling, and of the sample if there are more than `MOST_PAIRS` pairs.

    Returns:
        The results, without points if no threshold or no true-accept rate can be found.
    """
    people = [person for person in people if len(person)]
    photos, none = sum(map(len, people)), torch.empty(0, dtype=torch.float64)
    if not all(bool(torch.isfinite(person).all()) for person in people):
        return CalibrationResult(photos, len(people), none, none, (), min_accept_rate, _NOT_FINITE)
    impostor, genuine = pair_scores(people, rng) if people else (Scores(none, none), Scores(none, none))
    why_not, points = _unfit(len(people), impostor, genuine), {}
    if why_not is None:
        weights = weights_in_parts(len(people), resamples, rng)
        points = _points(impostor, genuine, list(dict.fromkeys((*rates, at_rate))), weights, len(people))
        why_not = _too_weak(points[at_rate], min_accept_rate)
    found = tuple(points[rate] for rate in rates) if points else ()
    return CalibrationResult(photos, len(people), impostor.values, genuine.values, found, min_accept_rate, why_not)


def pair_scores(people: Sequence[Tensor], rng: torch.Generator) -> tuple[Scores, Scores]:
    """Impostor and genuine scores of unit vectors (n_i, d), at least one person; at most `MOST_PAIRS` of each kind."""
    sizes = torch.tensor([len(person) for person in people])
    vectors, owner = torch.cat(list(people)), torch.arange(len(people)).repeat_interleave(sizes)
    here, after = torch.arange(len(vectors)), sizes.cumsum(0)[owner]
    pairs = [_pairs(after, torch.full_like(after, len(vectors)), rng), _pairs(here + 1, after, rng)]
    impostor, genuine = (Scores(_cosines(vectors, pair), owner[pair]) for pair in pairs)
    return impostor, genuine


def resolves(pairs: int, people: int, rate: float) -> bool:
    """Whether there are enough pairs to measure a false-match rate.

    `ERRORS` pairs of photos must lie above the threshold, and they must come from at least one pair of people. With
    fewer people, the threshold is that of the two who happen to look most alike.
    """
    return pairs * rate >= ERRORS and false_pairs(people, rate) >= 1


def false_pairs(people: int, rate: float) -> float:
    """The expected number of pairs of people who are mistaken for one person at a false-match rate."""
    return people * (people - 1) / 2 * rate


def thresholds(scores: Scores, rates: Sequence[float], weights: Tensor) -> Tensor:
    """The similarity that a share of the weighted impostor pairs exceeds; see `identity.match_threshold`.

    Args:
        scores: at least one pair.
        rates: shares.
        weights: how often each person counts, float64 (r, people).

    Returns:
        float64 (r, rates); NaN in rows without any pair of two people.
    """
    order = scores.values.argsort(descending=True, stable=True)
    values, pairs = scores.values[order], scores.people[order]
    wanted = _all_pairs(pairs, weights)[:, None] * torch.tensor(rates, dtype=torch.float64)
    # Only the highest scores decide; all scores are used if a resample puts more weight on lower ones than expected.
    top = min(len(values), max(_TOP, math.ceil(4 * max(rates) * len(values))))
    index = _reached(pairs[:top], weights, wanted)
    if int(index.max()) == top < len(values):
        index = _reached(pairs, weights, wanted)
    return values[index.clamp(max=len(values) - 1)].masked_fill(wanted <= 0, torch.nan)


def accepted(scores: Scores, limits: Tensor, weights: Tensor) -> Tensor:
    """Share of the weighted genuine pairs above each threshold.

    Args:
        scores: at least one pair; both people of a pair are the same.
        limits: thresholds, float64 (r, rates).
        weights: how often each person counts, float64 (r, people).

    Returns:
        float64 (r, rates); NaN where a threshold is NaN, and in rows without any pair.
    """
    values, order = scores.values.sort()
    owner, every, found = scores.people[order, 0], [], []
    step = max(1, _CELLS // len(values))
    for part, some in zip(torch.split(weights, step), torch.split(limits, step), strict=True):
        summed = part[:, owner].cumsum(1)
        not_above = torch.searchsorted(values, some.contiguous(), right=True)
        every.append(summed[:, -1:].expand_as(some))
        found.append(every[-1] - torch.nn.functional.pad(summed, (1, 0)).gather(1, not_above))
    return (torch.cat(found) / torch.cat(every)).masked_fill(torch.isnan(limits), torch.nan)


def _points(
    impostor: Scores, genuine: Scores, rates: Sequence[float], weights: Iterable[Tensor], people: int
) -> dict[float, CalibratedPoint]:
    found = []
    for part in weights:
        limits = thresholds(impostor, rates, part)
        found.append((limits, accepted(genuine, limits, part)))
    every, shares = (torch.cat(column) for column in zip(*found, strict=True))
    return {
        rate: CalibratedPoint(
            rate,
            _figure(every[:, i]),
            _figure(shares[:, i]),
            resolves(len(impostor.values), people, rate),
        )
        for i, rate in enumerate(rates)
    }


def _figure(values: Tensor) -> Interval:
    """A figure (1 + r,) with its interval; the sample itself always has a value."""
    return interval(values) or Interval(float(values[0]), None, None)


def _unfit(people: int, impostor: Scores, genuine: Scores) -> str | None:
    """Why nothing can be measured."""
    if people < 2:
        return "fewer than two people have a photo with a face"
    if not len(genuine.values):
        return "nobody has two photos with a face"
    if min(float(impostor.values.min()), float(genuine.values.min())) >= ALIKE:
        return "it gives nearly the same vector for every face"
    return None


def _too_weak(point: CalibratedPoint, needed: float) -> str | None:
    """Why a recogniser that was measured may not judge."""
    if point.threshold.value >= ALIKE:
        return (
            "photos of two people get the same vector more often than a false-match rate of "
            f"{point.false_match_rate:g} allows"
        )
    if point.true_accept_rate.value < needed:
        return (
            f"it matches {point.true_accept_rate.value:.3f} of the pairs of photos of one person at a false-match rate "
            f"of {point.false_match_rate:g}, and {needed:g} are needed"
        )
    return None


def _pairs(start: Tensor, stop: Tensor, rng: torch.Generator) -> Tensor:
    """Pairs of photo i with each photo from start[i] to before stop[i], int64 (n, 2); a sample of too many."""
    counts = stop - start
    ends = counts.cumsum(0)
    total = int(ends[-1])
    if total > MOST_PAIRS:
        # Take one from each of equally long stretches.
        places = torch.arange(MOST_PAIRS) + torch.rand(MOST_PAIRS, dtype=torch.float64, generator=rng)
        numbers = (places * (total / MOST_PAIRS)).long().clamp(max=total - 1)
    else:
        numbers = torch.arange(total)
    first = torch.searchsorted(ends, numbers, right=True)
    return torch.stack([first, start[first] + numbers - (ends - counts)[first]], dim=1)


def _cosines(vectors: Tensor, pairs: Tensor) -> Tensor:
    """Cosines of pairs (n, 2) of rows: float64 (n,), without holding all pairs at once."""

    def unit(rows: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vectors[rows].double(), dim=1)

    parts = [(unit(part[:, 0]) * unit(part[:, 1])).sum(1) for part in torch.split(pairs, 8192)]
    return torch.cat(parts).clamp(-1, 1)


def _all_pairs(pairs: Tensor, weights: Tensor) -> Tensor:
    """The summed weights of all pairs of people (n, 2), by row of the people's weights: float64 (r,)."""
    count = weights.shape[1]
    met, often = torch.unique(pairs[:, 0] * count + pairs[:, 1], return_counts=True)
    first, second = met // count, met % count
    parts = torch.split(weights, max(1, _CELLS // len(met)))
    return torch.cat([(part[:, first] * part[:, second]) @ often.double() for part in parts])


def _reached(pairs: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
    """Index of the first pair at which the summed weights exceed the wanted ones (r, rates); their number if none.

    If nothing is wanted, the index is 0.
    """
    parts, step = [], max(1, _CELLS // len(pairs))
    for part, want in zip(torch.split(weights, step), torch.split(wanted, step), strict=True):
        summed = (part[:, pairs[:, 0]] * part[:, pairs[:, 1]]).cumsum(1)
        parts.append(torch.searchsorted(summed, want, right=True))
    return torch.cat(parts).masked_fill(wanted <= 0, 0)
