"""Tell one person from everybody else by a linear score of features.

The direction is the whitened mean difference of linear discriminant analysis, w = (W + λ I)⁻¹ (m − μ): W is the
covariance of photos of one person around that person's mean, m the mean of the person's photos, μ everybody's mean.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ireu_cli.maths.identity import centred

_COUNTED = 10
"""The fewest scores above a threshold for reading a rate from them; with fewer, the tail is extrapolated."""
_LACKING = 10
"""How much shrinkage grows with features per photo; values between 7 and 13 find the same people."""
_PAIRS = 50
"""The number of photos, beyond each person's first, that a covariance within people needs."""
_SPREAD = 0.1
"""The smallest share of the shrunk spread: too few photos do not spread in all directions."""
FOLDS = 5
"""The number of groups of people; scores are tested on each group and owe it only the spread of changed copies."""
_LEAST = 1e-4
"""The smallest variance for shrinkage, as a share of that of all photos: one person's photos may be copies."""
AT_ONCE = 1024
"""The number of a fold's photos that are summed in one product; a product of few rows costs as much as one of many."""
_FEW, _SHARE = 20, 20
"""The most photos of one person that count, or a twentieth of all photos if that is more."""
_TAIL = 100
"""The number of highest scores that an exponential tail is fitted to, at most a tenth of all."""


@dataclass
class PeopleSums:
    """Running sums over people; memory does not grow with their number."""

    photos: int = 0
    pairs: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    square: Tensor = field(default_factory=lambda: torch.zeros(()))
    within: Tensor = field(default_factory=lambda: torch.zeros(()))
    views: int = 0
    between_views: Tensor = field(default_factory=lambda: torch.zeros(()))
    by_person: bool | None = None
    """Whether the spread is that within people; None: if there are enough photos of the same people."""

    def add_people(self, people: Sequence[Tensor]) -> None:
        """Add all photos of some people at once: float (n, d) each. A single photo counts only for the mean."""
        features, own = next(centred(people, at_once=sys.maxsize))
        self.photos += len(features)
        self.pairs += len(features) - len(people)
        self.total = self.total + features.sum(0)
        self.square = self.square + features.T @ features
        self.within = self.within + own.T @ own

    def add_person(self, features: Tensor) -> None:
        """Add all photos of one person: float (n, d)."""
        self.add_people([features])

    def add_views(self, *photos: Tensor) -> None:
        """Add photos with changed copies of each, float (v, d) each; differences between copies identify nobody."""
        features, own = next(centred(photos, at_once=sys.maxsize))
        self.views += len(features)
        self.between_views = self.between_views + own.T @ own

    def plus(self, some: "PeopleSums") -> "PeopleSums":
        """The sums over these people and over others; changed copies of photos remain."""
        return replace(
            self,
            photos=self.photos + some.photos,
            pairs=self.pairs + some.pairs,
            total=self.total + some.total,
            square=self.square + some.square,
            within=self.within + some.within,
        )

    def without(self, some: "PeopleSums") -> "PeopleSums":
        """The sums without some people who were added; changed copies of photos remain."""
        return replace(
            self,
            photos=self.photos - some.photos,
            pairs=self.pairs - some.pairs,
            total=self.total - some.total,
            square=self.square - some.square,
            within=self.within - some.within,
        )

    def mean(self) -> Tensor:
        """Everybody's mean: float64 (d,)."""
        return self.total / self.photos

    @property
    def labelled(self) -> bool:
        """Whether the spread is that within people."""
        return self.pairs >= _PAIRS if self.by_person is None else self.by_person

    def variance(self) -> Tensor:
        """The mean variance of features over all photos: float64 ()."""
        return (self.square.diagonal() / self.photos - self.mean().square()).mean()

    def spread(self) -> Tensor:
        """W, the covariance within people: float64 (d, d).

        It includes the spread of changed copies around their photo, so that no score depends on how a photo is changed.
        If people are unknown, or have one photo each, it is the covariance of all photos.
        """
        every = self.square / self.photos - torch.outer(self.mean(), self.mean())
        within = self.within / self.pairs if self.labelled else every
        return within + self.between_views / max(self.views, 1)

    def whitener(self, shrinkage: float) -> Tensor:
        """W + λ I, with λ the mean variance times `shrinkage`, and more if W comes from few photos: float64 (d, d)."""
        spread = self.spread()
        lacking = len(spread) / max(self.pairs if self.labelled else self.photos, 1)
        variance = torch.maximum(spread.diagonal().mean(), _LEAST * self.variance())
        shrunk = shrinkage * (1 + _LACKING * lacking) * variance
        return spread + shrunk * torch.eye(len(spread), dtype=torch.float64)


@dataclass(frozen=True)
class Deal:
    """The assignment of people to folds: `sizes` are the numbers of photos of each person, in order.

    People are dealt out in turn. If every photo counts as its own person, the people are not known. Then neighbours may
    show the same person, so they go into one fold.
    """

    sizes: tuple[int, ...]

    @cached_property
    def most(self) -> int:
        """The number of one person's photos that count, so that no single person decides what strangers look like."""
        return max(_FEW, sum(self.sizes) // _SHARE)

    def fold(self, number: int) -> int:
        """The fold of a person."""
        return int(self.folds[number])

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """The fold of everybody: int64 (people,)."""
        numbers = np.arange(len(self.sizes))
        return numbers * FOLDS // len(self.sizes) if self._is_unlabelled else numbers % FOLDS

    @cached_property
    def _is_unlabelled(self) -> bool:
        return max(self.sizes) == 1


@dataclass(frozen=True)
class PeopleInFolds:
    """Sums over all people, and over all except those of each fold.

    A score's direction avoids the spread of the photos that it is made from, so strangers score higher than these
    photos do. The scores of strangers are seen on each fold's photos, with the direction from all other people.
    """

    every: PeopleSums
    others: tuple[PeopleSums, ...]
    _prepared: dict[float, tuple["Whitened", ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def are_told_apart(self) -> bool:
        """Whether features are finite, and whether those of all except each fold's people differ."""
        variances = torch.stack([sums.variance() for sums in (self.every, *self.others)])
        scale = self.every.square.diagonal().mean() / self.every.photos
        return bool((variances > 1e-12 * scale).all())

    def whitened(self, shrinkage: float) -> tuple["Whitened", ...]:
        """What directions are made from, for everybody and then for all except each fold; kept for later requests."""
        if shrinkage not in self._prepared:
            self._prepared[shrinkage] = tuple(Whitened.of(sums, shrinkage) for sums in (self.every, *self.others))
        return self._prepared[shrinkage]


@dataclass(frozen=True)
class Whitened:
    """Everybody's mean (d,), the covariance within people, and the lower Cholesky factor of the whitener (d, d)."""

    mean: Tensor
    spread: Tensor
    factor: Tensor

    @classmethod
    def of(cls, sums: PeopleSums, shrinkage: float) -> "Whitened":
        """Prepare some sums."""
        return cls(sums.mean(), sums.spread(), torch.linalg.cholesky(sums.whitener(shrinkage)))


@dataclass(frozen=True)
class FoldSums:
    """Sums over each fold's people, and over changed copies of some photos, which count in all folds."""

    folds: tuple[PeopleSums, ...]
    copies: PeopleSums

    def together(self) -> PeopleInFolds:
        """What directions and thresholds are made from."""
        every = self.copies
        for fold in self.folds:
            every = every.plus(fold)
        others = [every.without(fold) for fold in self.folds]
        # All use the same kind of spread: scores with one kind say nothing about thresholds with the other.
        by_person = all(part.labelled for part in others)
        return PeopleInFolds(
            replace(every, by_person=by_person), tuple(replace(part, by_person=by_person) for part in others)
        )


def sum_folds(people: Iterable[Tensor], views: Iterable[Tensor], deal: Deal) -> FoldSums:
    """Go through people once, some at a time, with one product for many photos of a fold, however few a person has.

    Args:
        people: features of each person, float (n, d).
        views: for some photos, the photo and its changed copies, float (v, d).
        deal: the assignment of people to folds.
    """
    folds = tuple(PeopleSums() for _ in range(FOLDS))
    waiting: list[list[Tensor]] = [[] for _ in folds]
    counts = [0] * FOLDS
    for number, person in enumerate(people):
        fold = deal.fold(number)
        waiting[fold].append(person[: deal.most])
        counts[fold] += len(waiting[fold][-1])
        if counts[fold] >= AT_ONCE:
            folds[fold].add_people(waiting[fold])
            waiting[fold], counts[fold] = [], 0
    for sums, rest in zip(folds, waiting, strict=True):
        if rest:
            sums.add_people(rest)
    copies = PeopleSums()
    if seen := list(views):
        copies.add_views(*seen)
    return FoldSums(folds, copies)


def sum_people(people: Iterable[Tensor], views: Iterable[Tensor], deal: Deal) -> PeopleInFolds:
    """`sum_folds`, combined."""
    return sum_folds(people, views, deal).together()


def direction(people: Tensor, mean: Tensor, spread: Tensor, factor: Tensor, silent: Tensor) -> Tensor:
    """The direction w of each person, scaled so that photos of one person spread by about one.

    Args:
        people: float64 (n, d), the means of each person's photos.
        mean: float64 (d,), everybody's mean.
        spread: float64 (d, d), from `PeopleSums.spread`.
        factor: float64 (d, d), the lower Cholesky factor of `PeopleSums.whitener`, which all people share.
        silent: float64 (k, d), pictures that must score no more than the mean, such as null images. The result is the
            nearest direction, in the metric of the whitener, that gives them the mean's score.

    Returns:
        float64 (d, n); a photo's score is w · features.
    """
    away, apart = (people - mean).T, (silent - mean).T
    columns = torch.cholesky_solve(torch.cat([away, apart], 1), factor)
    found, blocked = columns[:, : len(people)], columns[:, len(people) :]
    found = found - blocked @ torch.linalg.lstsq(apart.T @ blocked, apart.T @ found).solution
    shrunk = (factor.T @ found).norm(dim=0).clamp_min(1e-150)
    own = (found * (spread @ found)).sum(0).clamp_min(0).sqrt()
    scaled: Tensor = found / torch.maximum(own, _SPREAD * shrunk)
    return scaled


@dataclass(frozen=True)
class Threshold:
    """A score above `value` counts as the person; `extrapolated` if too few scores lie above it to count them."""

    value: float
    extrapolated: bool


def highest_needed(count: int, rate: float) -> int:
    """How many of the highest scores `threshold_at` looks at, for a number of scores."""
    return min(count, max(_TAIL, math.floor(rate * (count + 1))) + 1)


def threshold_at(scores: Tensor, rate: float, count: int | None = None) -> Threshold:
    """The score that other people's photos exceed at the given rate.

    Args:
        scores: (n,), scores of photos of other people.
        rate: false-alarm rate, above 0 and below 1.
        count: the number of photos, if `scores` are only the highest ones; there must be at least `highest_needed` of
            them.

    Returns:
        If ten scores or a tenth of them lie above the rate, it is the score that leaves no more than that share above.
        Otherwise it is the end of an exponential tail. In the limit of high thresholds, this is the heaviest tail of
        scores with a finite scale (the Pickands-Balkema-de Haan theorem with shape 0). For such a tail with an unknown
        scale, the next score exceeds the threshold at the rate on average, however few the scores are (the predictive
        distribution, a Lomax one).
    """
    count = len(scores) if count is None else count
    ordered = scores.double().topk(min(len(scores), highest_needed(count, rate))).values
    tail = max(2, min(_TAIL, count // 10))
    # Above the score that so many exceed lies the next one in one more of one more cases, on average.
    above = math.floor(rate * (count + 1)) - 1
    if above >= min(_COUNTED, tail):
        return Threshold(float(ordered[above]), extrapolated=False)
    start = float(ordered[min(tail, count - 1)])
    excess = float((ordered[:tail] - start).mean())
    share = (tail + 1) / (count + 1)
    return Threshold(start + excess * tail * math.expm1(math.log(share / rate) / tail), extrapolated=True)
