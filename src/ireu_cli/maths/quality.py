"""Distances between sets of pictures, by the definitions of torchmetrics, with intervals over people.

Every function takes features of one image network, float (n_i, d) a person: one tensor for each person, and the same
people in the same order in each set. A person without a picture in a set has an empty tensor (0, d) there.

Intervals are a delete-one-person jackknife (Efron and Stein 1981): pictures of one person are not independent, so
people are left out, not pictures. A bootstrap does not work: it draws people twice, and then compares each copy with
itself as if it were another picture. The unbiased estimate must leave out exactly a picture's likeness to itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

_FEWEST = 3
"""The fewest people for a meaningful interval."""


@dataclass(frozen=True)
class Spread:
    """A distance with its 95 % interval, the number of drawn pictures behind it, and the number of their people."""

    value: float
    low: float
    high: float
    photos: int
    people: int


def kid(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Spread | None:
    """Kernel Inception distance (Binkowski et al. 2018): squared MMD of k(x, y) = (x'y / d + 1)^3, unbiased.

    It uses all pictures, not random subsets, like torchmetrics' `KernelInceptionDistance` with one subset as large as
    the sets. The kernel is that of torchmetrics. The sums are not its `poly_mmd`, which only works for two sets of the
    same size; for such sets the two agree. The value is around zero if the sets do not differ, so it can be negative.

    It is unbiased only for independent pictures. Pictures and photos of the same person are similar, which lowers the
    value, and several pictures of one person in a set raise it; the interval does not include this. `kid_change` is
    nearly free of it.

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
    """How much further the pictures after are from the photos than the pictures before: the change of `kid`.

    It is paired: people without pictures in one of the two states are left out of both. For the interval, each other
    person is left out of all sets at once, so that what both states share does not widen it.

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
    measured only if both sets hold more than 2 d pictures, whichever person is left out. Even then about a seventh of
    the total variance is bias, which falls with 1 / n. The interval does not include it, so compare only sets of the
    same size.

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
        # A person without pictures cannot be left out, and this value is not used.
        rest = [torch.cat([group for i, group in enumerate(groups) if i != left_out]) for groups in sets]
        values.append(_frechet(*rest) if either[left_out] else values[0])
    return _spread(torch.tensor(values, dtype=torch.float64), either, drawn)


class _Same(nn.Module):
    """Takes the place of torchmetrics' network: its inputs already are features."""

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
    """Unbiased squared MMD (Gretton et al. 2012, eq. 3): float64 (1 + people,), for all and without each person."""
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
        raise ValueError(f"the sets have {len(real)} and {len(drawn)} people; each set needs a tensor for each person")
    people = min(sum(len(group) > 0 for group in groups) for groups in (real, drawn))
    return people >= _FEWEST and all(bool(torch.isfinite(group).all()) for group in (*real, *drawn))


def _doubles(groups: Sequence[Tensor]) -> list[Tensor]:
    return [group.detach().double().cpu() for group in groups]


def _spread(values: Tensor, counted: Sequence[bool], drawn: Sequence[Tensor]) -> Spread | None:
    """Interval of values (1 + people,): the first is for all people, the others without one person each."""
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
