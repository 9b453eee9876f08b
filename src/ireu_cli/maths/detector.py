"""Telling one person from everybody else by a linear score of features.

The direction is the whitened mean difference of linear discriminant analysis, w = (W + λ I)⁻¹ (m − μ): W is the
covariance of photos of one person around that person's mean, m the mean of the person's photos, μ everybody's mean.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_COUNTED = 10
"""A rate is read off the scores where so many of them lie above; below that, the tail is extrapolated."""
_PAIRS = 50
"""Photos beyond each person's first that a covariance within people needs."""
_TAIL = 100
"""Scores at the upper end that an exponential tail is fitted to, at most a tenth of all."""


@dataclass
class PeopleSums:
    """Running sums over people; holds one person at a time, so memory does not grow with their number."""

    photos: int = 0
    pairs: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    square: Tensor = field(default_factory=lambda: torch.zeros(()))
    within: Tensor = field(default_factory=lambda: torch.zeros(()))
    views: int = 0
    between_views: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add_person(self, features: Tensor) -> None:
        """Add all photos of one person: float (n, d). A single photo counts for the mean alone."""
        features = features.double()
        own = features - features.mean(0)
        self.photos += len(features)
        self.pairs += len(features) - 1
        self.total = self.total + features.sum(0)
        self.square = self.square + features.T @ features
        self.within = self.within + own.T @ own

    def add_views(self, features: Tensor) -> None:
        """Add changed copies of one photo beside the photo itself: float (v, d); what they differ in tells nobody."""
        own = features.double() - features.double().mean(0)
        self.views += len(features)
        self.between_views = self.between_views + own.T @ own

    def mean(self) -> Tensor:
        """Everybody's mean: float64 (d,)."""
        return self.total / self.photos

    @property
    def labelled(self) -> bool:
        """Whether there are photos enough of the same people to speak of a spread within people."""
        return self.pairs >= _PAIRS

    def whitener(self, shrinkage: float) -> Tensor:
        """W + λ I with λ = `shrinkage` times the mean variance: float64 (d, d).

        W includes the spread of changed copies around their photo, so that no score depends on how a photo is changed.
        Where photos do not come with people, or with one photo each, W is the covariance of all photos.
        """
        spread = self.square / self.photos - torch.outer(self.mean(), self.mean())
        within = self.within / self.pairs if self.labelled else spread
        within = within + self.between_views / max(self.views, 1)
        return within + shrinkage * within.diagonal().mean() * torch.eye(len(within), dtype=torch.float64)


def direction(person: Tensor, mean: Tensor, whitener: Tensor, silent: Tensor) -> Tensor:
    """The direction w, scaled so that photos of one person spread by about one.

    Args:
        person: float64 (d,), the mean of the person's photos.
        mean: float64 (d,), everybody's.
        whitener: float64 (d, d), of `PeopleSums.whitener`.
        silent: float64 (k, d), pictures that must score no more than the mean does, such as null images; the nearest
            direction in the metric of the whitener that gives them its score is taken.

    Returns:
        float64 (d,); a photo's score is w · features.
    """
    away, apart = person - mean, (silent - mean).T
    columns = torch.linalg.solve(whitener, torch.cat([away[:, None], apart], 1))
    found, blocked = columns[:, 0], columns[:, 1:]
    found = found - blocked @ torch.linalg.lstsq(apart.T @ blocked, apart.T @ found).solution
    scaled: Tensor = found / (found @ whitener @ found).clamp_min(1e-300).sqrt()
    return scaled


@dataclass(frozen=True)
class Threshold:
    """Above `value` a score counts as the person; `extrapolated` where too few scores reach the rate to count it."""

    value: float
    extrapolated: bool


def threshold_at(scores: Tensor, rate: float) -> Threshold:
    """The score that other people's photos exceed at the given rate.

    Args:
        scores: (n,), of photos of other people.
        rate: false-alarm rate, above 0 and below 1.

    Returns:
        Where ten scores or more reach the rate, the one that leaves no more than that share above; otherwise the end
        of an exponential tail, which is the heaviest that scores with a finite scale have in the limit of high
        thresholds (the Pickands-Balkema-de Haan theorem with shape 0).
    """
    ordered = scores.double().sort(descending=True).values
    above = math.floor(rate * len(ordered))
    if above >= _COUNTED:
        return Threshold(float(ordered[above]), extrapolated=False)
    tail = max(2, min(_TAIL, len(ordered) // 10))
    start = float(ordered[min(tail, len(ordered) - 1)])
    excess = float((ordered[:tail] - start).mean())
    return Threshold(start + excess * math.log(tail / (len(ordered) * rate)), extrapolated=True)
