"""Telling one person from everybody else by a linear score of features.

The direction is the whitened mean difference of linear discriminant analysis, w = (W + λ I)⁻¹ (m − μ): W is the
covariance of photos of one person around that person's mean, m the mean of the person's photos, μ everybody's mean.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ireu_cli.maths.identity import centred

_COUNTED = 10
"""A rate is read off the scores where so many of them lie above; below that, the tail is extrapolated."""
_LACKING = 10
"""By how much shrinkage grows with features per photo; between 7 and 13 it makes no difference in what is found."""
_PAIRS = 50
"""Photos beyond each person's first that a covariance within people needs."""
_SPREAD = 0.1
"""Of the shrunk spread, at least: photos that are too few to fill all directions do not spread in some of them."""
FOLDS = 5
"""Groups of people, each of which scores are tried on that owe them nothing but the spread of changed copies."""
_LEAST = 1e-4
"""The variance that shrinkage goes by, at least, as a share of that of all photos: those of a person may be copies."""
AT_ONCE = 1024
"""Photos of a fold that are summed in one product; a product of few rows costs as much as one of many."""
_FEW, _SHARE = 20, 20
"""Of one person so many photos count, or a twentieth of all photos where that is more."""
_TAIL = 100
"""Scores at the upper end that an exponential tail is fitted to, at most a tenth of all."""


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
    """Whether people tell the spread; None: where there are photos enough of the same people."""

    def add_people(self, people: Sequence[Tensor]) -> None:
        """Add all photos of some people at once: float (n, d) each. A single photo counts for the mean alone."""
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
        """Add photos beside changed copies of each, float (v, d) each; what copies of one differ in tells nobody."""
        features, own = next(centred(photos, at_once=sys.maxsize))
        self.views += len(features)
        self.between_views = self.between_views + own.T @ own

    def plus(self, some: "PeopleSums") -> "PeopleSums":
        """The sums over these people and over others; changed copies of photos stay."""
        return replace(
            self,
            photos=self.photos + some.photos,
            pairs=self.pairs + some.pairs,
            total=self.total + some.total,
            square=self.square + some.square,
            within=self.within + some.within,
        )

    def without(self, some: "PeopleSums") -> "PeopleSums":
        """What is left when people who were added are taken out again; changed copies of photos stay."""
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
        Where photos do not come with people, or with one photo each, it is the covariance of all photos.
        """
        every = self.square / self.photos - torch.outer(self.mean(), self.mean())
        within = self.within / self.pairs if self.labelled else every
        return within + self.between_views / max(self.views, 1)

    def whitener(self, shrinkage: float) -> Tensor:
        """W + λ I, with λ the mean variance times `shrinkage`, and more where few photos tell W: float64 (d, d)."""
        spread = self.spread()
        lacking = len(spread) / max(self.pairs if self.labelled else self.photos, 1)
        variance = torch.maximum(spread.diagonal().mean(), _LEAST * self.variance())
        shrunk = shrinkage * (1 + _LACKING * lacking) * variance
        return spread + shrunk * torch.eye(len(spread), dtype=torch.float64)


@dataclass(frozen=True)
class Deal:
    """How people go into folds: `sizes` are the photos of each person, in order.

    People are dealt out in turn. Where every photo is its own person, whose it is is not known: neighbours may show
    the same person, and go into one fold.
    """

    sizes: tuple[int, ...]

    @cached_property
    def most(self) -> int:
        """Photos of one person that count, so that no single person says what strangers are like."""
        return max(_FEW, sum(self.sizes) // _SHARE)

    def fold(self, number: int) -> int:
        """The fold of a person."""
        return number * FOLDS // len(self.sizes) if self._is_unlabelled else number % FOLDS

    @cached_property
    def _is_unlabelled(self) -> bool:
        return max(self.sizes) == 1


@dataclass(frozen=True)
class PeopleInFolds:
    """Sums over all people, and over all but those of each fold.

    A score's direction avoids what the photos that it comes from spread by, so that strangers score higher than they
    do. What strangers do is seen on each fold's photos with the direction that comes from all other people.
    """

    every: PeopleSums
    others: tuple[PeopleSums, ...]
    _prepared: dict[float, tuple["Whitened", ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def are_told_apart(self) -> bool:
        """Whether features are finite numbers, and those of all but each fold's people differ."""
        variances = torch.stack([sums.variance() for sums in (self.every, *self.others)])
        scale = self.every.square.diagonal().mean() / self.every.photos
        return bool((variances > 1e-12 * scale).all())

    def whitened(self, shrinkage: float) -> tuple["Whitened", ...]:
        """What directions are made of, of everybody first and then of each fold's others; kept for later requests."""
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
        """What directions and thresholds are made of."""
        every = self.copies
        for fold in self.folds:
            every = every.plus(fold)
        others = [every.without(fold) for fold in self.folds]
        # One kind of spread for all: scores of one kind say nothing of thresholds for the other.
        by_person = all(part.labelled for part in others)
        return PeopleInFolds(
            replace(every, by_person=by_person), tuple(replace(part, by_person=by_person) for part in others)
        )


def sum_folds(people: Iterable[Tensor], views: Iterable[Tensor], deal: Deal) -> FoldSums:
    """Go through people once, some at a time: one product a fold and so many photos, however few photos a person has.

    Args:
        people: of each person, float (n, d).
        views: of some photos, the photo and its changed copies, float (v, d).
        deal: how people go into folds.
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
    """`sum_folds`, put together."""
    return sum_folds(people, views, deal).together()


def direction(person: Tensor, mean: Tensor, spread: Tensor, factor: Tensor, silent: Tensor) -> Tensor:
    """The direction w, scaled so that photos of one person spread by about one.

    Args:
        person: float64 (d,), the mean of the person's photos.
        mean: float64 (d,), everybody's.
        spread: float64 (d, d), of `PeopleSums.spread`.
        factor: float64 (d, d), the lower Cholesky factor of `PeopleSums.whitener`, which many people share.
        silent: float64 (k, d), pictures that must score no more than the mean does, such as null images; the nearest
            direction in the metric of the whitener that gives them its score is taken.

    Returns:
        float64 (d,); a photo's score is w · features.
    """
    away, apart = person - mean, (silent - mean).T
    columns = torch.cholesky_solve(torch.cat([away[:, None], apart], 1), factor)
    found, blocked = columns[:, 0], columns[:, 1:]
    found = found - blocked @ torch.linalg.lstsq(apart.T @ blocked, apart.T @ found).solution
    shrunk = (factor.T @ found).norm().clamp_min(1e-150)
    scaled: Tensor = found / torch.maximum((found @ spread @ found).clamp_min(0).sqrt(), _SPREAD * shrunk)
    return scaled


@dataclass(frozen=True)
class Threshold:
    """Above `value` a score counts as the person; `extrapolated` where too few scores reach the rate to count it."""

    value: float
    extrapolated: bool


def highest_needed(count: int, rate: float) -> int:
    """How many of the highest of so many scores `threshold_at` looks at."""
    return min(count, max(_TAIL, math.floor(rate * (count + 1))) + 1)


def threshold_at(scores: Tensor, rate: float, count: int | None = None) -> Threshold:
    """The score that other people's photos exceed at the given rate.

    Args:
        scores: (n,), of photos of other people.
        rate: false-alarm rate, above 0 and below 1.
        count: how many photos there are, where `scores` are only the highest of theirs, `highest_needed` at least.

    Returns:
        Where ten scores or a tenth of them reach the rate, the one that leaves no more than that share above;
        otherwise the end of an exponential tail, which is the heaviest that scores with a finite scale have in the
        limit of high thresholds (the Pickands-Balkema-de Haan theorem with shape 0). Of such a tail of unknown scale
        the next score exceeds it at the rate on average, however few the scores are (the predictive distribution, a
        Lomax one).
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
