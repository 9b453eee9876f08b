"""Calibration of recognisers, against naive counts, known distributions and people without any structure."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ireu_cli.maths import calibration
from ireu_cli.maths.calibration import (
    CalibrationResult,
    Scores,
    accepted,
    calibrate,
    pair_scores,
    resolves,
    thresholds,
)
from ireu_cli.maths.identity import match_threshold
from ireu_cli.support.runtime import generator
from ireu_cli.verifying.operating_points import curves, histogram, reported

RATES = (0.01, 0.05, 0.2)


def crowd(count: int, photos: Sequence[int], width: int, noise: float, seed: int = 0) -> list[Tensor]:
    """People at random places, their photos around them: unit vectors (n_i, width), `photos` taken in turn."""
    rng, people = generator(seed, "crowd", count), []
    for number in range(count):
        place, shape = torch.randn(width, generator=rng), (photos[number % len(photos)], width)
        people.append(torch.nn.functional.normalize(place + noise * torch.randn(shape, generator=rng), dim=1))
    return people


def measured(people: Sequence[Tensor], rates: Sequence[float] = RATES, resamples: int = 200) -> CalibrationResult:
    return calibrate(people, rates, 0.3, rates[0], resamples, generator(1))


def naive(people: Sequence[Tensor], counts: Sequence[int], rate: float) -> tuple[float, float]:
    """Threshold and true-accept rate, pair by pair, with each person there as often as counted."""
    impostor: list[float] = []
    genuine: list[float] = []
    for a, first in enumerate(people):
        for i in range(len(first)):
            genuine += [float(first[i].double() @ first[j].double()) for j in range(i)] * counts[a]
            for b in range(a):
                impostor += [float(first[i].double() @ v.double()) for v in people[b]] * (counts[a] * counts[b])
    threshold = match_threshold(torch.tensor(impostor, dtype=torch.float64), rate)
    return threshold, sum(score > threshold + 1e-12 for score in genuine) / len(genuine)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (2, 0, 1, 3, 0), (0, 5, 0, 1, 0)])
def test_thresholds_and_rates_against_a_count_of_pairs(counts: tuple[int, ...]) -> None:
    people = crowd(5, (4, 1, 6, 3, 2), 8, 0.9)
    impostor, genuine = pair_scores(people, generator(0))
    weights = torch.tensor([counts], dtype=torch.float64)
    limits = thresholds(impostor, RATES, weights)
    shares = accepted(genuine, limits, weights)
    for column, rate in enumerate(RATES):
        threshold, share = naive(people, counts, rate)
        assert float(limits[0, column]) == pytest.approx(threshold, abs=1e-6)
        assert float(shares[0, column]) == pytest.approx(share)


def test_the_values_are_those_of_the_sample_itself() -> None:
    people = crowd(12, (3, 5), 16, 0.8)
    result = measured(people)
    assert (result.photos, result.people) == (48, 12)
    assert len(result.impostor) == (48**2 - 6 * 9 - 6 * 25) // 2
    assert len(result.genuine) == 6 * 3 + 6 * 10
    for point in result.points:
        threshold, share = naive(people, [1] * 12, point.false_match_rate)
        assert point.threshold.value == pytest.approx(threshold, abs=1e-6)
        assert point.true_accept_rate.value == pytest.approx(share)


def test_a_resample_of_one_person_says_nothing() -> None:
    impostor, genuine = pair_scores(crowd(3, (2,), 8, 0.5), generator(0))
    weights = torch.tensor([[3.0, 0, 0], [1, 1, 1]], dtype=torch.float64)
    limits = thresholds(impostor, RATES, weights)
    assert torch.isnan(limits[0]).all()
    assert torch.isfinite(limits[1]).all()
    assert torch.isnan(accepted(genuine, limits, weights)[0]).all()


def test_resamples_that_reach_below_the_top_use_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    people = crowd(6, (3, 4, 9), 8, 0.9)
    whole = measured(people, (0.02,))
    monkeypatch.setattr(calibration, "_TOP", 1)
    monkeypatch.setattr(calibration, "_CELLS", 50)
    assert measured(people, (0.02,)).points == whole.points


def test_known_threshold_and_rate() -> None:
    # Cosines of random directions in d dimensions: a * sqrt(d) is near normal; 2.326 is its upper hundredth.
    result = measured(crowd(120, (5,), 100, 0.7), (0.01,))
    (point,) = result.points
    assert point.threshold.value == pytest.approx(0.2326, abs=0.01)
    # Cosine of two photos of a person: mean 1 / (1 + 0.7 ** 2).
    assert float(result.genuine.mean()) == pytest.approx(1 / 1.49, abs=0.02)
    assert point.true_accept_rate.value > 0.99
    assert result.usable
    assert point.resolved


def test_intervals_cover_the_truth_and_narrow_with_people() -> None:
    noise, width, covered, widths = 1.6, 32, 0, {}
    truth = measured(crowd(400, (6,), width, noise, seed=99), (0.01,), 100).points[0]
    for seed in range(30):
        (point,) = measured(crowd(25, (6,), width, noise, seed), (0.01,)).points
        low, high = point.true_accept_rate.low, point.true_accept_rate.high
        assert low is not None
        assert high is not None
        covered += low <= truth.true_accept_rate.value <= high
        widths[25] = high - low
    assert 26 <= covered <= 30
    low, high = truth.true_accept_rate.low, truth.true_accept_rate.high
    assert low is not None
    assert high is not None
    assert high - low < 0.5 * widths[25]


def test_the_same_seed_gives_the_same_result() -> None:
    people = crowd(10, (4,), 8, 0.8)
    assert measured(people).points == measured(people).points
    other = calibrate(people, RATES, 0.3, RATES[0], 200, generator(2))
    assert [point.threshold.value for point in other.points] == [p.threshold.value for p in measured(people).points]
    assert other.points != measured(people).points


def test_many_pairs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    people = crowd(60, (8,), 16, 1.0)
    whole = measured(people)
    monkeypatch.setattr(calibration, "MOST_PAIRS", 20_000)
    sampled = measured(people)
    assert len(sampled.impostor) == 20_000
    assert len(whole.impostor) > 100_000
    assert torch.equal(sampled.impostor, measured(people).impostor)
    for ours, theirs in zip(sampled.points, whole.points, strict=True):
        assert ours.threshold.value == pytest.approx(theirs.threshold.value, abs=0.02)
        assert ours.true_accept_rate.value == pytest.approx(theirs.true_accept_rate.value, abs=0.03)


def test_a_sample_is_drawn_from_all_pairs_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_PAIRS", 2000)
    impostor, genuine = pair_scores(crowd(20, (12,), 8, 1.0), generator(0))
    met = torch.bincount(impostor.people[:, 0] * 20 + impostor.people[:, 1], minlength=400).view(20, 20)
    counts = met[tuple(torch.triu_indices(20, 20, 1))]
    # 2000 of 190 * 144 pairs of photos: 10.5 of each pair of people.
    assert counts.min() >= 5
    assert counts.max() <= 16
    assert len(genuine.values) == 20 * 66


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    scores = Scores(torch.tensor([0.5, 0.5, 0.7], dtype=torch.float64), torch.zeros(3, 2, dtype=torch.int64))
    limits = torch.tensor([[0.5, 0.4, 0.7]], dtype=torch.float64)
    found = accepted(scores, limits, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 1, 0]], dtype=torch.float64))


def test_two_people_have_values_without_intervals() -> None:
    result = measured(crowd(2, (5,), 16, 0.3))
    assert result.usable
    for point in result.points:
        assert (point.threshold.low, point.threshold.high) == (None, None)
        assert (point.true_accept_rate.low, point.true_accept_rate.high) == (None, None)
        assert not point.resolved


def test_three_people_drawn_as_one_leave_intervals_open() -> None:
    # One resample in nine is of one person alone: more than the 2.5 % beyond either bound.
    result = measured(crowd(3, (5,), 16, 0.3))
    assert all((point.threshold.low, point.threshold.high) == (None, None) for point in result.points)
    four = measured(crowd(4, (5,), 16, 0.3), resamples=2000)
    assert all(point.threshold.low is not None for point in four.points)


ONES = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
JUNK = torch.full((4, 8), torch.nan)


@pytest.mark.parametrize(
    ("people", "why", "points"),
    [
        ([], "fewer than two people", 0),
        (crowd(1, (5,), 8, 0.5), "fewer than two people", 0),
        ([torch.empty(0, 8), *crowd(1, (5,), 8, 0.5)], "fewer than two people", 0),
        (crowd(5, (1,), 8, 0.5), "nobody has two photos", 0),
        ([ONES] * 5, "nearly the same vector", 0),
        (
            [torch.nn.functional.normalize(ONES + 1e-5 * torch.randn(4, 8, generator=generator(3)), dim=1)] * 3,
            "same",
            0,
        ),
        ([*crowd(4, (4,), 8, 0.5), JUNK], "not finite", 0),
        (crowd(20, (4,), 8, 50.0), "it matches 0.0", 3),
        ([crowd(1, (4,), 8, 0.5)[0]] * 4 + crowd(4, (4,), 8, 0.5), "get the same vector", 3),
    ],
)
def test_what_cannot_judge_says_why(people: list[Tensor], why: str, points: int) -> None:
    result = measured(people)
    assert not result.usable
    assert result.why_not is not None
    assert why in result.why_not
    assert len(result.points) == points
    entry = reported("x", "0" * 64, result)
    assert (entry.usable, entry.why_not, len(entry.points)) == (False, result.why_not, points)


def test_empty_people_are_passed_over() -> None:
    people = crowd(6, (4,), 8, 0.5)
    assert measured([people[0], torch.empty(0, 8), *people[1:]]).points == measured(people).points


def test_the_rate_it_is_held_to_need_not_be_reported() -> None:
    people = crowd(20, (5,), 16, 1.2)
    strict = measured(people, (0.01,)).points[0].true_accept_rate.value
    lax = measured(people, (0.2,)).points[0].true_accept_rate.value
    assert strict < lax
    between = (strict + lax) / 2
    held = {rate: calibrate(people, (0.05,), between, rate, 100, generator(0)) for rate in (0.01, 0.2)}
    assert not held[0.01].usable
    assert held[0.2].usable
    assert [point.false_match_rate for point in held[0.2].points] == [0.05]


def test_a_rate_is_resolved_by_pairs_and_by_people() -> None:
    assert resolves(2000, 20, 0.01)
    assert not resolves(1999, 20, 0.01)
    assert not resolves(1_000_000, 14, 0.01)
    assert resolves(1_000_000, 15, 0.01)
    assert not resolves(1_000_000, 45, 0.001)
    assert resolves(1_000_000, 46, 0.001)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=7),
    noise=st.floats(0.05, 3),
    rates=st.lists(st.floats(0.001, 0.5), min_size=2, max_size=4, unique=True).map(sorted),
    seed=st.integers(0, 1000),
)
def test_invariants(sizes: list[int], noise: float, rates: list[float], seed: int) -> None:
    people = crowd(len(sizes), sizes, 6, noise, seed)
    result = calibrate(people, rates, 0.0, rates[0], 100, generator(seed))
    backwards = calibrate(people[::-1], rates, 0.0, rates[0], 100, generator(seed))
    for point, other in zip(result.points, backwards.points, strict=True):
        assert point.threshold.value == pytest.approx(other.threshold.value, abs=1e-6)
        share = float((result.impostor > point.threshold.value).double().mean())
        assert share <= point.false_match_rate + 1e-9
        for found in (point.threshold, point.true_accept_rate):
            assert found.low is None or found.low <= found.value
            assert found.high is None or found.high >= found.value
        assert 0 <= point.true_accept_rate.value <= 1
    for lower, higher in zip(result.points, result.points[1:], strict=False):
        assert lower.threshold.value >= higher.threshold.value
        assert lower.true_accept_rate.value <= higher.true_accept_rate.value
    assert bool(result.points) == any(size > 1 for size in sizes)


def test_the_report_holds_what_was_found() -> None:
    result = measured(crowd(30, (4,), 32, 0.7))
    entry = reported("ours", "ab" * 32, result)
    assert (entry.recogniser, entry.fingerprint, entry.photos, entry.people) == ("ours", "ab" * 32, 120, 30)
    assert entry.genuine_mean == pytest.approx(float(result.genuine.mean()))
    assert entry.impostor_mean == pytest.approx(float(result.impostor.mean()))
    assert entry.needed == 0.3
    assert entry.usable
    for point, source in zip(entry.points, result.points, strict=True):
        assert point.false_match_rate == source.false_match_rate
        assert (point.threshold_low, point.threshold, point.threshold_high) == (
            source.threshold.low,
            source.threshold.value,
            source.threshold.high,
        )
        assert (point.true_accept_low, point.true_accept_rate, point.true_accept_high) == (
            source.true_accept_rate.low,
            source.true_accept_rate.value,
            source.true_accept_rate.high,
        )
        assert point.resolved == source.resolved
    assert all(point.resolved for point in entry.points)


def test_a_recogniser_without_scores_is_reported_without_means() -> None:
    result = measured([JUNK, ONES])
    entry = reported("broken", "0" * 64, result)
    assert (entry.genuine_mean, entry.impostor_mean, entry.points) == (None, None, ())
    assert curves("broken", result) == ()


def test_curves_count_every_pair() -> None:
    result = measured(crowd(20, (4,), 16, 0.7))
    impostor, genuine = curves("ours", result)
    assert (impostor.kind, genuine.kind, impostor.measure) == ("impostor", "genuine", "ours")
    assert (sum(impostor.counts), sum(genuine.counts)) == (len(result.impostor), len(result.genuine))
    assert impostor.start + impostor.width * len(impostor.counts) == pytest.approx(1)
    middles = [impostor.start + impostor.width * (place + 0.5) for place in range(len(impostor.counts))]
    for curve, scores in ((impostor, result.impostor), (genuine, result.genuine)):
        mean = sum(m * c for m, c in zip(middles, curve.counts, strict=True)) / sum(curve.counts)
        assert mean == pytest.approx(float(scores.mean()), abs=0.01)


def test_bins_begin_where_they_say() -> None:
    edges = torch.tensor([round(0.02 * place - 0.5, 2) for place in range(75)], dtype=torch.float64)
    assert histogram(edges) == (1,) * 75
    assert histogram(edges + 0.0199) == (1,) * 75
    ends = histogram(torch.tensor([-0.9, 1.0, 1.0]))
    assert (ends[0], ends[74], sum(ends)) == (1, 2, 3)


def test_scores_keep_their_people() -> None:
    people = crowd(3, (2, 3), 8, 0.5)
    impostor, genuine = pair_scores(people, generator(0))
    assert isinstance(impostor, Scores)
    assert sorted(map(tuple, genuine.people.tolist())) == [(0, 0), (1, 1), (1, 1), (1, 1), (2, 2)]
    assert len(impostor.values) == 2 * 3 + 2 * 2 + 3 * 2
    for value, (a, b) in zip(impostor.values.tolist(), impostor.people.tolist(), strict=True):
        assert a < b
        assert (people[a].double() @ people[b].double().T - value).abs().min() < 1e-6
