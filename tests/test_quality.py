"""Distances between sets of pictures, against torchmetrics itself and against naive recomputation."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from ireu_cli.maths.quality import Spread, _student, fid, kid, kid_change
from ireu_cli.support.runtime import generator

WIDTH = 6
EMPTY = torch.empty(0, WIDTH, dtype=torch.float64)


def people(seed: int, counts: list[int], shift: float = 0.0, width: int = WIDTH) -> list[Tensor]:
    """Pictures around a mean of each person, the same people for every seed."""
    means = torch.randn(len(counts), width, generator=generator(0, "means", width), dtype=torch.float64)
    rng = generator(seed, "pictures")
    return [
        mean + shift + 0.5 * torch.randn(count, width, generator=rng, dtype=torch.float64)
        for mean, count in zip(means, counts, strict=True)
    ]


def without(groups: list[Tensor], left_out: int) -> list[Tensor]:
    return [group for i, group in enumerate(groups) if i != left_out]


class Identity(nn.Module):
    num_features = WIDTH

    def forward(self, features: Tensor) -> Tensor:
        return features


def by_torchmetrics(real: list[Tensor], drawn: list[Tensor]) -> float:
    """The library's own figure, from one subset that holds everything."""
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=sum(map(len, real)))
    metric.update(torch.cat(real), real=True)
    metric.update(torch.cat(drawn), real=False)
    return float(metric.compute()[0])


def naive_kid(real: list[Tensor], drawn: list[Tensor]) -> float:
    """Gretton's estimate, pair by pair."""
    x, y = torch.cat(real), torch.cat(drawn)

    def mean(first: Tensor, second: Tensor, *, same: bool) -> float:
        pairs = [
            (float(a @ b) / WIDTH + 1) ** 3
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if not (same and i == j)
        ]
        return sum(pairs) / len(pairs)

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


def found(spread: Spread | None) -> Spread:
    assert spread is not None
    return spread


def test_kid_is_torchmetrics() -> None:
    real, drawn = people(1, [3, 2, 4]), people(2, [3, 2, 4], shift=0.4)
    assert found(kid(real, drawn)).value == pytest.approx(by_torchmetrics(real, drawn), rel=1e-9)


def test_kid_of_sets_of_different_sizes_is_the_definition() -> None:
    real, drawn = people(1, [3, 2, 4, 1]), people(2, [1, 5, 1, 0], shift=0.4)
    spread = found(kid(real, drawn))
    assert spread.value == pytest.approx(naive_kid(real, drawn), rel=1e-9)
    assert (spread.photos, spread.people) == (7, 3)


def test_interval_leaves_out_one_person_at_a_time() -> None:
    real, drawn = people(1, [3, 2, 4, 2]), people(2, [1, 5, 2, 1], shift=0.4)
    spread = found(kid(real, drawn))
    rest = torch.tensor([naive_kid(without(real, i), without(drawn, i)) for i in range(4)], dtype=torch.float64)
    half = 3.182 * float(((rest - rest.mean()) ** 2).sum() * 3 / 4) ** 0.5
    assert spread.high - spread.value == pytest.approx(half, rel=0.002)
    assert spread.value - spread.low == pytest.approx(half, rel=0.002)


def test_quantiles_of_student() -> None:
    for freedom, value in ((2, 4.303), (3, 3.182), (5, 2.571), (29, 2.045)):
        assert _student(freedom) == pytest.approx(value, rel=0.01)


def test_people_may_be_in_one_set_only() -> None:
    """Photos of other people: nobody is in both sets."""
    six = people(1, [2] * 6)
    spread = found(kid([*six[:3], *[EMPTY] * 3], [*[EMPTY] * 3, *six[3:]]))
    assert spread.value == pytest.approx(by_torchmetrics(six[:3], six[3:]), rel=1e-9)
    assert (spread.photos, spread.people) == (6, 3)


def test_kid_change_is_the_difference_and_paired() -> None:
    real, before = people(1, [2] * 8), people(2, [2] * 8, shift=0.5)
    after = [group + 0.1 for group in before]
    first, second, change = found(kid(real, before)), found(kid(real, after)), found(kid_change(real, before, after))
    assert change.value == pytest.approx(second.value - first.value, rel=1e-9)
    assert change.high - change.low < 0.5 * (second.high - second.low)
    nothing = found(kid_change(real, before, before))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_kid_change_looks_at_people_of_both_states() -> None:
    real, before, after = people(1, [2] * 5), people(2, [2] * 5), people(3, [2] * 5, shift=0.3)
    before[0], after[1] = EMPTY, EMPTY
    change = found(kid_change(real, before, after))
    assert change.people == 3
    assert change.photos == 6
    assert change.value == pytest.approx(naive_kid(real, after[2:]) - naive_kid(real, before[2:]), rel=1e-9)
    rest = [
        naive_kid(without(real, 2 + i), without(after[2:], i)) - naive_kid(without(real, 2 + i), without(before[2:], i))
        for i in range(3)
    ]
    left_out = torch.tensor(rest, dtype=torch.float64)
    half = 4.303 * float(((left_out - left_out.mean()) ** 2).sum() * 2 / 3) ** 0.5
    assert change.high - change.value == pytest.approx(half, rel=0.01)
    after[2] = EMPTY
    assert kid_change(real, before, after) is None


def test_fid_is_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, drawn = people(1, [5, 6, 7, 8]), people(2, [6, 6, 6, 6], shift=0.5)
    metric = FrechetInceptionDistance(feature=Identity())
    metric.update(torch.cat(real), real=True)
    metric.update(torch.cat(drawn), real=False)
    spread = found(fid(real, drawn))
    assert spread.value == pytest.approx(float(metric.compute()), rel=1e-6)
    assert spread.low < spread.value < spread.high
    assert (spread.photos, spread.people) == (24, 4)


def test_fid_leaves_out_one_person_at_a_time() -> None:
    real, drawn = people(1, [6] * 4, width=2), people(2, [6] * 4, shift=0.5, width=2)
    values = [found(fid(without(real, i), without(drawn, i))).value for i in range(4)]
    rest = torch.tensor(values, dtype=torch.float64)
    half = 3.182 * float(((rest - rest.mean()) ** 2).sum() * 3 / 4) ** 0.5
    spread = found(fid(real, drawn))
    assert spread.high - spread.value == pytest.approx(half, rel=0.002)


def test_fid_needs_more_pictures_than_twice_the_features() -> None:
    enough = people(1, [5, 5, 5, 5], width=7)
    assert fid(enough, enough) is not None
    assert fid(people(1, [5, 5, 5, 5], width=8), people(2, [5, 5, 5, 5], width=8)) is None
    assert fid(people(1, [5, 5, 5, 5], width=7), people(2, [5, 5, 5, 4], width=7)) is None
    assert fid(people(1, [5, 5, 5, 4], width=7), people(2, [5, 5, 5, 5], width=7)) is None


@pytest.mark.parametrize("measure", [kid, fid])
def test_what_cannot_be_measured(measure: object, capfd: pytest.CaptureFixture[str]) -> None:
    assert callable(measure)
    groups = people(1, [9, 9, 9])
    assert measure(groups, groups) is not None
    assert measure(groups[:2], groups[:2]) is None
    assert measure([*groups[:2], EMPTY], groups) is None
    assert measure(groups, [*groups[:2], EMPTY]) is None
    assert measure([], []) is None
    for bad in (torch.nan, torch.inf):
        spoiled = [*groups[:2], torch.cat([groups[2][1:], torch.full((1, WIDTH), bad, dtype=torch.float64)])]
        assert measure(groups, spoiled) is None
        assert measure(spoiled, groups) is None
    # Eigenvalues of NaN are complained about by the library below torch.
    assert "".join(capfd.readouterr()) == ""
    assert measure([group * 1e200 for group in groups], groups) is None
    with pytest.raises(ValueError, match="a tensor for each person"):
        measure(groups, groups[:2])


def test_one_picture_a_person_is_enough_for_kid() -> None:
    assert kid(people(1, [1, 1, 1]), people(2, [1, 1, 1])) is not None
    assert kid(people(1, [1, 1, 1]), people(2, [1, 1, 1], shift=torch.nan)) is None


def test_a_bootstrap_would_be_biased() -> None:
    """Why the interval leaves people out: drawing people twice moves the figure itself, always upwards."""
    real, drawn = people(1, [3] * 10), people(2, [3] * 10, shift=0.3)
    spread, rng = found(kid(real, drawn)), generator(0, "bootstrap")
    draws = [torch.randint(10, (10,), generator=rng).tolist() for _ in range(100)]
    values = [found(kid([real[i] for i in draw], [drawn[i] for i in draw])).value for draw in draws]
    assert sum(values) / len(values) > spread.value + 0.2 * (spread.high - spread.value)
