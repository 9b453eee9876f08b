"""Distances between sets of pictures, by the definitions of torchmetrics, with intervals over people.

Every function takes features of one image network, float (n_i, d) a person, one tensor for each person and the same
people in the same order in each set. Somebody without a picture in a set is an empty tensor (0, d) there.

Intervals are a delete-one-person jackknife (Efron and Stein 1981): pictures of one person are not independent, so
people are left out, not pictures. A bootstrap cannot serve: it draws people twice, each copy is then compared with
itself as if it were another picture, and a picture's likeness to itself is what the unbiased estimate leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

_FEWEST = 3
"""With fewer people there is no interval worth the name."""


@dataclass(frozen=True)
class Spread:
    """A distance with its 95 % interval, the drawn pictures behind it, and how many people they are of."""

    value: float
    low: float
    high: float
    photos: int
    people: int


def kid(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Spread | None:
    """Kernel Inception distance (Binkowski et al. 2018): squared MMD of k(x, y) = (x'y / d + 1)^3, unbiased.

    Over all pictures, not over random subsets: torchmetrics' `KernelInceptionDistance` with one subset as large as the
    sets. The kernel is torchmetrics'. The sums are not its `poly_mmd`, which holds for two sets of one size only; for
    these the two agree. Around zero when the sets do not differ, so it can be negative.

    Unbiased means for independent pictures. Pictures and photos of the same person are alike, which pulls it down, and
    several of one person in a set push it up; the interval does not hold that. `kid_change` is nearly free of it.

    Args:
        real: features of photos, float (n_i, d) a person.
        drawn: features of drawn pictures of the same people.

    Returns:
        None with fewer than three people in either set, fewer than two pictures left without one of them, or features
        that are not finite.

    Raises:
        ValueError: the sets are not of the same people.
    """
    if not _measurable(real, drawn):
        return None
    either = [len(one) + len(other) > 0 for one, other in zip(real, drawn, strict=True)]
    return _spread(_squared_mmd(_doubles(real), _doubles(drawn)), either, drawn)


def kid_change(real: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]) -> Spread | None:
    """How much further the pictures drawn after are from the photos than those drawn before: the change of `kid`.

    Paired: people without pictures in one of the two states are left out of both, and each of the others is left out of
    all sets at once, so that what both states share does not widen the interval.

    Args:
        real: features of photos, float (n_i, d) a person.
        before: features of pictures drawn with the original encoder, of the same people.
        after: the same with the edited encoder.

    Returns:
        None where `kid` of either state is None, or fewer than three people have pictures in both.

    Raises:
        ValueError: the sets are not of the same people.
    """
    both = [len(one) > 0 and len(other) > 0 for one, other in zip(before, after, strict=True)]
    before, after = (
        [group if kept else group[:0] for group, kept in zip(groups, both, strict=True)] for groups in (before, after)
    )
    if not (_measurable(real, before) and _measurable(real, after)):
        return None
    photos = _doubles(real)
    change = _squared_mmd(photos, _doubles(after)) - _squared_mmd(photos, _doubles(before))
    return _spread(change, both, after)


def fid(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Spread | None:
    """Fréchet Inception distance (Heusel et al. 2017), torchmetrics' `FrechetInceptionDistance`.

    It compares covariances (d, d). From n pictures these have a rank of at most n - 1, and the distance is biased
    upwards: two sets of n = d / 2 from one normal distribution differ by half of its total variance or more. It is
    measured only where both sets hold more than 2 d pictures whoever is left out. Even then about a seventh of the
    total variance is bias, which falls with 1 / n and which the interval does not hold: compare sets of one size only.

    Args:
        real: features of photos, float (n_i, d) a person.
        drawn: features of drawn pictures of the same people.

    Returns:
        None with fewer than three people in either set, too few pictures, or features that are not finite.

    Raises:
        ValueError: the sets are not of the same people.
    """
    if not _measurable(real, drawn):
        return None
    sets = (_doubles(real), _doubles(drawn))
    width = sets[0][0].shape[1]
    if any(sum(map(len, groups)) - max(map(len, groups)) <= 2 * width for groups in sets):
        return None
    either = [len(one) + len(other) > 0 for one, other in zip(*sets, strict=True)]
    values = [_frechet(*(torch.cat(groups) for groups in sets))]
    for left_out in range(len(either)):
        # Of somebody without pictures nothing can be left out, and the value is not looked at.
        rest = [torch.cat([group for i, group in enumerate(groups) if i != left_out]) for groups in sets]
        values.append(_frechet(*rest) if either[left_out] else values[0])
    return _spread(torch.tensor(values, dtype=torch.float64), either, drawn)


class _Same(nn.Module):
    """Stands where torchmetrics wants a network: what comes in are features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def _frechet(real: Tensor, drawn: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Same(real.shape[1]))
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return float(metric.compute())


def _squared_mmd(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
    """Unbiased squared MMD (Gretton et al. 2012, eq. 3): float64 (1 + people,), of all and without each person."""
    n, m = (_left_out(torch.tensor([len(group) for group in groups]).double().diag()) for groups in (real, drawn))
    within_real, within_drawn = (_left_out(_sums(groups, groups) - _own(groups).diag()) for groups in (real, drawn))
    between = _left_out(_sums(real, drawn))
    return within_real / (n * (n - 1)) + within_drawn / (m * (m - 1)) - 2 * between / (n * m)


def _sums(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Kernel summed over pairs of pictures of two people: float64 (people of first, people of second)."""
    from torchmetrics.image.kid import poly_kernel

    columns = torch.cat(list(second))
    owner = torch.repeat_interleave(torch.tensor([len(group) for group in second]))
    empty = torch.zeros(len(second), dtype=torch.float64)
    return torch.stack([empty.index_add(0, owner, poly_kernel(group, columns).sum(0)) for group in first])


def _own(groups: Sequence[Tensor]) -> Tensor:
    """Kernel of each picture with itself, summed by person: float64 (people,)."""
    from torchmetrics.image.kid import poly_kernel

    return torch.stack([poly_kernel(group, group).diagonal().sum() for group in groups])


def _left_out(sums: Tensor) -> Tensor:
    """Total of a table (people, people), then its total without the row and column of each person: (1 + people,)."""
    total = sums.sum()
    return torch.cat([total[None], total - sums.sum(0) - sums.sum(1) + sums.diagonal()])


def _measurable(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> bool:
    if len(real) != len(drawn):
        raise ValueError(f"{len(real)} and {len(drawn)} people; each set needs a tensor for each person")
    people = min(sum(len(group) > 0 for group in groups) for groups in (real, drawn))
    return people >= _FEWEST and all(bool(torch.isfinite(group).all()) for group in (*real, *drawn))


def _doubles(groups: Sequence[Tensor]) -> list[Tensor]:
    return [group.detach().double().cpu() for group in groups]


def _spread(values: Tensor, counted: Sequence[bool], drawn: Sequence[Tensor]) -> Spread | None:
    """Interval of values (1 + people,) whose first is of all people, from those without each person that counts."""
    value, rest = float(values[0]), values[1:][torch.tensor(counted)]
    if not bool(torch.isfinite(values[:1]).all() and torch.isfinite(rest).all()):
        return None
    count = len(rest)
    error = float(((rest - rest.mean()).square().sum() * (count - 1) / count).sqrt())
    half = _student(count - 1) * error
    sizes = [len(group) for group in drawn]
    return Spread(value, value - half, value + half, sum(sizes), sum(size > 0 for size in sizes))


def _student(freedom: float) -> float:
    """97.5 % quantile of Student's t, within 1 % from two degrees of freedom on (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
