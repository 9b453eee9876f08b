"""The maths, against definitions and naive counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ireu_cli.exporting.rounding import kept_in_weights, kept_share
from ireu_cli.maths.fisher import FisherSums
from ireu_cli.maths.identity import centroid, fit_space, match_threshold
from ireu_cli.maths.losses import mean_distance, virtual_identity
from ireu_cli.maths.masks import captured_energy, mean_overlap, rank_correlation, top_mask
from ireu_cli.maths.stats import estimate
from ireu_cli.support.runtime import generator


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.floats(0.01, 1))
def test_top_mask_keeps_the_highest(values: list[float], fraction: float) -> None:
    score = torch.tensor(values)
    mask = top_mask(score, fraction)
    assert int(mask.sum()) == max(1, math.floor(fraction * len(values) + 0.5))
    if not mask.all():
        assert score[mask].min() >= score[~mask].max()


def test_top_mask_breaks_ties_by_index() -> None:
    assert top_mask(torch.ones(5), 0.4).tolist() == [True, True, False, False, False]


def test_mean_overlap_against_a_count() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    found = mean_overlap(masks)
    assert found is not None
    assert found[0] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert mean_overlap(masks[:1]) is None


def test_random_masks_overlap_by_chance() -> None:
    masks = torch.stack([top_mask(torch.rand(1000, generator=generator(0, i)), 0.4) for i in range(20)])
    found = mean_overlap(masks)
    assert found is not None
    assert found[0] == pytest.approx(0.4, abs=0.02)


def test_rank_correlation() -> None:
    score = torch.rand(50, generator=generator(1))
    assert rank_correlation(score, score.exp()) == pytest.approx(1)
    assert rank_correlation(score, -score) == pytest.approx(-1)
    assert rank_correlation(score, torch.ones(50)) is None


def test_captured_energy() -> None:
    mask = torch.tensor([True, False, False])
    assert captured_energy(mask, torch.tensor([[3.0, 0, 4], [0, 0, 0]])) == pytest.approx(9 / 25)


@pytest.mark.parametrize("tokens", [0, 3])
def test_fisher_ratio_against_the_definition(tokens: int) -> None:
    rng = generator(2)
    people = [torch.randn(n, *([tokens] if tokens else []), 6, generator=rng) + i for i, n in enumerate((2, 5, 3, 4))]
    sums = FisherSums()
    for person in [*people, torch.randn_like(people[0][:1])]:
        sums.add_person(person)
    means = torch.stack([person.mean(0) for person in people]).double()
    between = means.var(0)
    spread = [(person.double() - person.double().mean(0)).square().sum(0) for person in people]
    within = torch.stack(spread).sum(0) / (14 - 4)
    expected = between.sum(0) / within.sum(0) if tokens else between / within
    torch.testing.assert_close(sums.ratio(), expected.float())


def test_virtual_identity_is_the_papers_equation() -> None:
    z, shift = torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.tensor([True, False, True, False])
    moved = virtual_identity(z, shift, mask, alpha=100, sign=1)
    for i in range(2):
        for j in range(4):
            assert float(moved[i, j]) == pytest.approx(float(z[i, j] + 100 * mask[j] * shift[i, j]), rel=1e-5)
    torch.testing.assert_close(virtual_identity(z, shift, mask, 100, -1), 2 * z - moved)


def test_virtual_identity_shares_the_mask_among_tokens() -> None:
    z, shift = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    masks = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    moved = virtual_identity(z, shift, masks, 2, 1)
    assert moved[0].sum(0).tolist() == [6, 0, 0, 0]
    assert moved[1].sum(0).tolist() == [0, 0, 0, 6]


def test_mean_distance_is_the_norm_not_its_square() -> None:
    z = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]])
    assert float(mean_distance(z, torch.zeros_like(z))) == pytest.approx(3.0)


def test_whitened_space_tells_people_apart_where_plain_cosine_cannot() -> None:
    rng = generator(3)
    who = torch.randn(60, 8, generator=rng)
    noise = torch.cat([torch.full((4,), 4.0), torch.full((4,), 0.1)])
    people = [person + noise * torch.randn(8, 8, generator=rng) for person in who]
    space = fit_space(people)
    assert space.kind == "whitened cosine"

    def gap(kind: bool) -> float:
        mapped = [space(p) if kind else torch.nn.functional.normalize(p.double() - space.mean, dim=1) for p in people]
        same = torch.stack([(m[0] * m[1]).sum() for m in mapped])
        other = torch.stack([(mapped[i][0] * mapped[i - 1][1]).sum() for i in range(60)])
        return float((same.mean() - other.mean()) / other.std())

    assert gap(True) > 1.5 * gap(False)
    assert fit_space(people[:2]).kind == "centred cosine"


def test_match_threshold_gives_the_false_match_rate() -> None:
    scores = torch.rand(10000, generator=generator(4))
    threshold = match_threshold(scores, 0.01)
    assert int((scores.double() > threshold).sum()) == 100


def test_centroid_is_a_unit_vector() -> None:
    assert float(centroid(torch.eye(3, dtype=torch.float64)).norm()) == pytest.approx(1)


def test_bootstrap_is_over_people_and_covers() -> None:
    rng = generator(5)
    hits = 0
    for trial in range(200):
        groups = [torch.randn(5, generator=rng) * 0.1 + torch.randn(1, generator=rng) for _ in range(30)]
        found = estimate(groups, 300, generator(trial, "boot"))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    # Photos of a person move together: resampling photos would cover about half as often.
    assert 175 <= hits <= 199
    assert estimate([torch.zeros(0)], 100, rng) is None
    few = estimate([torch.ones(4), torch.zeros(4)], 100, rng)
    assert few is not None
    assert (few.value, few.low, few.people) == (0.5, None, 2)


def test_kept_share() -> None:
    change = torch.randn(1000, generator=generator(6))
    assert kept_share(change, change) == pytest.approx(1)
    assert kept_share(change, torch.zeros(1000)) == 0
    assert kept_share(torch.zeros(1000), torch.zeros(1000)) == 1
    assert kept_share(torch.zeros(1000), change) == 0
    assert kept_share(change, change / 2) == pytest.approx(0.5)
    drowned = change + 100 * torch.randn(1000, generator=generator(7))
    assert kept_share(change, drowned) < 0.05
    assert kept_share(torch.zeros(3), torch.ones(3)) == 0


@pytest.mark.parametrize(("relative", "at_least", "at_most"), [(1e-1, 0.99, 1.01), (1e-6, -0.1, 0.2)])
def test_rounding_keeps_large_edits_and_loses_small_ones(relative: float, at_least: float, at_most: float) -> None:
    base = torch.randn(20000, generator=generator(8))
    change = relative * torch.randn(20000, generator=generator(9))
    kept, _ = kept_in_weights({"w": lambda: base}, {"w": change}, {"w": torch.bfloat16})
    assert at_least <= kept <= at_most
    assert kept_in_weights({"w": lambda: base}, {"w": change}, {"w": torch.float32})[0] > 0.99
