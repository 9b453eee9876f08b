"""Interchange curves: how much identity and everything else change as one person's features become another's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.stats import Interval, interval, resampled_weights

ASPECTS = ("pose", "light", "background")
"""The aspects that an interchange of identity must not change."""


@dataclass(frozen=True)
class Moves:
    """The effect of interchanging on each pair of people (A, B) at each point of a sweep.

    All float64. `identity` (pairs, points) says how much closer a picture is to B's photo than to A's, compared with
    A's own drawing. `identity_span` (pairs,) is that value for B's drawing. `rest` (pairs, points, aspects) and
    `rest_span` (pairs, aspects) are distances to A's drawing. A point whose picture has no face is NaN in `identity`
    and `rest`.
    """

    identity: Tensor
    identity_span: Tensor
    rest: Tensor
    rest_span: Tensor

    def points(self, columns: Sequence[int]) -> "Moves":
        """Return some of the points of the sweep."""
        chosen = list(columns)
        return Moves(self.identity[:, chosen], self.identity_span, self.rest[:, chosen], self.rest_span)


@dataclass(frozen=True)
class Point:
    """One point of a curve: 0 is A's own drawing, 1 is B's.

    `rest` is the mean of the aspects that can be measured. None if too few pictures have a face, or if the drawings of
    A and B do not differ.
    """

    share: float
    identity: Interval | None
    rest: Interval | None
    aspects: dict[str, Interval | None]
    pictures: int
    without_face: int


@dataclass(frozen=True)
class Curve:
    """A sweep over the share of features, with its summaries.

    `area` lies between the curve and the axis of identity: 0 if nothing else moves, 0.5 if everything moves by the same
    amount. `half_share` is the share at which identity is half-way; `half_rest` is how far everything else has moved
    there.
    """

    points: tuple[Point, ...]
    area: Interval | None
    half_share: Interval | None
    half_rest: Interval | None


def moved(moves: Moves, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the way from A to B, as ratios of sums over pairs.

    It is a ratio of sums, because a pair whose two drawings hardly differ would give a quotient of noise.

    Args:
        moves: n pairs, p points.
        weights: float64 (r, n), how often each pair counts.

    Returns:
        identity (r, p) and rest (r, p, aspects); NaN if the spans sum to zero, or fewer than half of the pictures (by
        weight) have a face.
    """
    seen = torch.isfinite(moves.identity).double()
    enough = 2 * (weights @ seen) >= weights.sum(1, keepdim=True)
    span = weights @ (seen * moves.identity_span[:, None])
    identity = _ratio(weights @ torch.nan_to_num(moves.identity), span, enough)
    parts = []
    for aspect in range(moves.rest.shape[-1]):
        whole = weights @ (seen * moves.rest_span[:, aspect : aspect + 1])
        parts.append(_ratio(weights @ torch.nan_to_num(moves.rest[..., aspect]), whole, enough))
    return identity, torch.stack(parts, -1)


def curve(moves: Moves, shares: Sequence[float], resamples: int, rng: torch.Generator) -> Curve:
    """Bootstrap the curve over pairs.

    Args:
        moves: one point for each share.
        shares: ascending, in (0, 1]; the area needs the last to be 1.
        resamples: number of bootstrap resamples for each interval.
        rng: source of the resampling; equal generators draw the same resamples, so that curves of the same pairs can be
            compared.
    """
    weights = resampled_weights(len(moves.identity), resamples, rng)
    identity, aspects = moved(moves, weights)
    rest = torch.nanmean(aspects, -1)
    half = halfway(torch.tensor(shares, dtype=torch.float64), identity, rest)
    whole = area(identity, rest) if abs(shares[-1] - 1) < 1e-9 else torch.full((len(weights),), torch.nan)
    missing = torch.isnan(moves.identity).sum(0).tolist()
    points = tuple(
        Point(
            share=float(share),
            identity=interval(identity[:, i]),
            rest=interval(rest[:, i]),
            aspects={name: interval(aspects[:, i, j]) for j, name in enumerate(ASPECTS)},
            pictures=len(moves.identity),
            without_face=int(missing[i]),
        )
        for i, share in enumerate(shares)
    )
    return Curve(points, interval(whole), interval(half[0]), interval(half[1]))


def identity_span(moves: Moves, resamples: int, rng: torch.Generator) -> Interval | None:
    """How much closer B's drawings are to B's photos than A's drawings, on average; 0 if identity is lost."""
    weights = resampled_weights(len(moves.identity), resamples, rng)
    return interval(weights @ moves.identity_span / weights.sum(1))


def compare(first: Moves, second: Moves, resamples: int, rng: torch.Generator) -> Interval | None:
    """Area of the first curve minus that of the second, over the same pairs; both sweeps end at share 1."""
    weights = resampled_weights(len(first.identity), resamples, rng)
    areas = []
    for moves in (first, second):
        identity, aspects = moved(moves, weights)
        areas.append(area(identity, torch.nanmean(aspects, -1)))
    return interval(areas[0] - areas[1])


def area(identity: Tensor, rest: Tensor) -> Tensor:
    """Area between the curve, drawn from (0, 0), and the axis of identity.

    Args:
        identity: (r, p), in the order of the shares.
        rest: (r, p).

    Returns:
        (r,): a sum of signed trapezia, so that a stretch where the curve goes back does not count; NaN if any point is.
    """
    identity, rest = _from_zero(identity), _from_zero(rest)
    return ((rest[:, 1:] + rest[:, :-1]) / 2 * identity.diff(dim=1)).sum(1)


def halfway(shares: Tensor, identity: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """The point where identity first reaches one half, by linear interpolation.

    Args:
        shares: (p,), ascending.
        identity: (r, p).
        rest: (r, p).

    Returns:
        The share and the rest at that point, each (r,); NaN if identity does not reach one half, or the point just
        before is unknown.
    """
    identity, rest = _from_zero(identity), _from_zero(rest)
    shares = torch.cat([shares.new_zeros(1), shares])
    reached = identity >= 0.5
    first = reached.double().argmax(1)
    usable = reached.any(1)
    after, before = first.clamp_min(1)[:, None], (first.clamp_min(1) - 1)[:, None]
    low, high = identity.gather(1, before)[:, 0], identity.gather(1, after)[:, 0]
    part = torch.where(usable, (0.5 - low) / (high - low), torch.nan)
    between = [
        start + part * (end - start)
        for start, end in (
            (shares[before[:, 0]], shares[after[:, 0]]),
            (rest.gather(1, before)[:, 0], rest.gather(1, after)[:, 0]),
        )
    ]
    return between[0], between[1]


def _from_zero(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(len(values), 1), values], 1)


def _ratio(part: Tensor, whole: Tensor, enough: Tensor) -> Tensor:
    return torch.where(enough & (whole > 1e-9), part / whole.clamp_min(1e-9), torch.nan)
