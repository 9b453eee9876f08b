"""Closed-form unlearning: detectors, room, soft steps, erasing, and the ledger that requests are written into."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.errors import CapacityError
from ireu_cli.maths.detector import FOLDS, Deal, PeopleSums, direction, sum_people, threshold_at
from ireu_cli.maths.erase import eraser, reduced_regression
from ireu_cli.maths.room import make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.maths.token_gate import Contrast, TokenSums, contrast, gated
from ireu_cli.params import GatedParams
from ireu_cli.unlearning.gated.checks import check_statistics
from ireu_cli.unlearning.gated.site_sums import SiteSums, summarise
from ireu_cli.unlearning.gated.slots import leave
from ireu_cli.unlearning.gated.solve import (
    Readout,
    SiteStatistics,
    Wanted,
    change_of,
    compose,
    directions,
    enter,
    find,
    open_ledger,
    rate_of,
    with_thresholds,
)
from ireu_cli.unlearning.gated.solve_network import EmbeddingStatistics, summarise_embeddings
from ireu_cli.values import FeatureMask, Ledger


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_direction(person: Tensor, *given: Tensor) -> Tensor:
    """`direction` of one person, (d,): that of others beside it is its own."""
    pair = direction(torch.stack([person, normal(len(person), seed=77)]), *given)
    torch.testing.assert_close(direction(person[None], *given)[:, 0], pair[:, 0])
    return pair[:, 0]


class TestDetector:
    def test_within_covariance_is_of_photos_around_their_person(self) -> None:
        people = [normal(4, 3, seed=i) + 10 * normal(1, 3, seed=100 + i) for i in range(30)]
        sums = PeopleSums()
        for person in people:
            sums.add_person(person.float())
        own = torch.cat([person.float().double() - person.float().double().mean(0) for person in people])
        torch.testing.assert_close(sums.whitener(0.0), own.T @ own / (len(own) - 30), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(sums.mean(), torch.cat(people).float().double().mean(0))

    def test_photos_without_people_are_whitened_by_all_of_them(self) -> None:
        photos = normal(400, 3) * torch.tensor([1.0, 3.0, 0.5])
        sums = PeopleSums()
        for photo in photos:
            sums.add_person(photo[None])
        assert not sums.labelled
        torch.testing.assert_close(sums.whitener(0.0), torch.cov(photos.T, correction=0), rtol=1e-6, atol=1e-9)

    def test_what_a_change_of_the_photo_does_tells_nobody(self) -> None:
        sums, change = PeopleSums(), 4 * normal(4, seed=9)
        for i in range(200):
            photos = normal(1, 4, seed=i) + 0.5 * normal(3, 4, seed=1000 + i)
            sums.add_person(photos)
        silent, person = torch.zeros(0, 4).double(), normal(4, seed=7)
        blind = one_direction(
            person + change / 2, sums.mean(), sums.spread(), torch.linalg.cholesky(sums.whitener(0.1)), silent
        )
        for i in range(200):
            photo = normal(1, 4, seed=i)
            sums.add_views(torch.cat([photo, photo + change]))
        aware = one_direction(
            person + change / 2, sums.mean(), sums.spread(), torch.linalg.cholesky(sums.whitener(0.1)), silent
        )
        # Copies of the person are half changed: blind to it, the detector would find whoever is changed.
        spread = sums.whitener(0.1)
        gains = [float(w @ change) / float(w @ spread @ w) ** 0.5 for w in (blind, aware)]
        assert gains[1] < 0.6 * gains[0]
        assert float(aware @ (person - sums.mean())) > 0

    def test_shrinkage_is_relative_to_the_mean_variance_and_grows_where_photos_lack(self) -> None:
        sums = PeopleSums()
        for i in range(60):
            sums.add_person(5 * normal(3, 2, seed=i))
        bare, shrunk = sums.whitener(0.0), sums.whitener(0.5)
        # 120 photos beyond each person's first tell two features; ten times as many features count as much again.
        share = 0.5 * (1 + 10 * 2 / 120)
        torch.testing.assert_close(shrunk - bare, share * bare.diagonal().mean() * torch.eye(2, dtype=torch.float64))

    def test_scores_of_one_person_spread_by_one(self) -> None:
        spread = torch.tensor([[4.0, 1.5], [1.5, 1.0]], dtype=torch.float64)
        weight = one_direction(
            torch.tensor([3.0, -1.0]).double(),
            torch.zeros(2).double(),
            spread,
            torch.linalg.cholesky(spread),
            torch.zeros(0, 2).double(),
        )
        assert float(weight @ spread @ weight) == pytest.approx(1.0)
        plain = torch.tensor([3.0, -1.0]).double()
        # No direction separates the means better for the spread it has.
        ratio = (weight @ plain) ** 2 / (weight @ spread @ weight)
        assert all(ratio >= (w @ plain) ** 2 / (w @ spread @ w) - 1e-9 for w in normal(500, 2))

    def test_null_images_score_like_the_mean(self) -> None:
        spread = torch.cov(normal(50, 6).T)
        person, mean, nulls = normal(6, seed=1), normal(6, seed=2), 3 * normal(2, 6, seed=3)
        weight = one_direction(person, mean, spread, torch.linalg.cholesky(spread), nulls)
        torch.testing.assert_close(nulls @ weight, (mean @ weight).expand(2), atol=1e-9, rtol=0)
        assert float(weight @ spread @ weight) == pytest.approx(1.0)
        # Of all directions that are silent there, none separates better.
        for other in normal(300, 6, seed=4):
            basis = torch.linalg.qr((nulls - mean).T).Q
            silent = other - basis @ (basis.T @ other)
            assert (silent @ (person - mean)) ** 2 / (silent @ spread @ silent) <= (
                weight @ (person - mean)
            ) ** 2 + 1e-9
        twice = one_direction(person, mean, spread, torch.linalg.cholesky(spread), torch.cat([nulls, nulls[:1]]))
        torch.testing.assert_close(twice, weight)

    @pytest.mark.parametrize(
        ("sizes", "told", "labelled"),
        [
            ([3] * 40, True, True),
            # With one fold away too few photos of the same people are left: nothing may go by people then.
            ([3] * 30, True, False),
            # The same people in a flat folder, neighbours by name.
            ([10] * 40, False, False),
            ([600] + [3] * 60, True, True),
        ],
    )
    def test_the_rate_holds_on_strangers_even_where_few_photos_set_it(
        self, sizes: list[int], told: bool, labelled: bool
    ) -> None:
        """In 64 dimensions the direction avoids what few photos spread by, and strangers spread more."""
        people = [normal(1, 64, seed=500 + i) + normal(size, 64, seed=900 + i) for i, size in enumerate(sizes)]
        if not told:
            people = list(torch.cat(people)[:, None])
        deal = Deal(tuple(map(len, people)))
        sums = sum_people(people, [], deal)
        assert {part.labelled for part in (sums.every, *sums.others)} == {labelled}

        def rows(fold: int) -> list[Tensor]:
            return [person[: deal.most] for number, person in enumerate(people) if deal.fold(number) == fold]

        given = [3 * normal(1, 64, seed=100 + i) + normal(5, 64, seed=200 + i) for i in range(20)]
        found = with_thresholds(directions(given, sums, torch.zeros(0, 64), 0.3), given, sums, rows, 0.1)
        strangers = normal(4000, 64, seed=3) + normal(4000, 64, seed=4)
        taken = [float((strangers @ one.weight > one.threshold.value).double().mean()) for one in found]
        assert 0.06 < sum(taken) / len(taken) < 0.14

    def test_folds_leave_out_each_person_once(self) -> None:
        people = [normal(3, 4, seed=i) for i in range(17)]
        found = sum_people(people, [torch.cat([people[0], people[1]])], Deal((3,) * 17))
        assert [part.photos for part in found.others] == [39, 39, 42, 42, 42]
        for fold, part in enumerate(found.others):
            rest = [person for i, person in enumerate(people) if i % FOLDS != fold]
            alone = sum_people(rest, [], Deal((3,) * len(rest))).every
            torch.testing.assert_close(part.mean(), alone.mean())
            torch.testing.assert_close(part.within, alone.within)
            torch.testing.assert_close(part.between_views, found.every.between_views)

    def test_threshold_leaves_the_rate_above(self) -> None:
        scores = normal(5000)
        found = threshold_at(scores, 0.01)
        assert not found.extrapolated
        assert int((scores > found.value).sum()) == 49
        few = threshold_at(scores[:20], 0.3)
        assert not few.extrapolated
        assert int((scores[:20] > few.value).sum()) == 5

    @pytest.mark.parametrize("rate", [1e-3, 1e-4])
    def test_rare_rates_follow_the_tail(self, rate: float) -> None:
        scores = -torch.rand(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64).log()
        found = threshold_at(scores, rate)
        assert found.extrapolated
        assert found.value == pytest.approx(-math.log(rate), rel=0.15)  # of an exponential distribution

    @pytest.mark.parametrize(
        ("count", "rate"), [(20, 0.01), (20, 0.05), (20, 0.3), (50, 0.01), (100, 0.005), (1000, 0.01)]
    )
    def test_few_scores_keep_the_rate_on_average(self, count: int, rate: float) -> None:
        """Of exponential scores e^-t lie above t: what a tail of few scores says of its scale is often too little."""
        drawn = torch.Generator().manual_seed(5)
        scores = -torch.rand(4000, count, generator=drawn, dtype=torch.float64).log()
        above = [math.exp(-threshold_at(row, rate).value) for row in scores]
        assert sum(above) / len(above) == pytest.approx(rate, rel=0.12)

    def test_people_of_one_photo_many_times_can_be_whitened(self) -> None:
        people = [normal(1, 8, seed=i).expand(4, -1) for i in range(40)]
        sums = sum_people(people, [], Deal((4,) * 40))
        assert sums.are_told_apart
        assert float(sums.every.spread().abs().max()) < 1e-12
        torch.linalg.cholesky(sums.every.whitener(0.3))

    @pytest.mark.parametrize("value", [0.0, math.nan])
    def test_photos_that_tell_nobody_apart_are_refused(self, value: float) -> None:
        people = [normal(1, 8).expand(4, -1).clone() for _ in range(20)]
        people[0][0, 0] += value
        found = summarise_embeddings(people, [], torch.zeros(2, 8), [4] * 20)
        with pytest.raises(CapacityError, match="all the same to the encoder, or some features are not finite"):
            check_statistics(found, FeatureMask(torch.ones(8, dtype=torch.bool), torch.ones(8)), "embedding")

    def test_nobody_is_the_average_by_many_photos(self) -> None:
        """Of one person in 900 photos and 60 in three, the one counts as so many photos as in thresholds."""
        sizes = [900] + [3] * 60
        people = [5 * normal(1, 8, seed=i) + 0.1 * normal(size, 8, seed=200 + i) for i, size in enumerate(sizes)]
        deal = Deal(tuple(sizes))
        counted = torch.cat([person[: deal.most] for person in people])
        readout = Readout(lambda rows: rows, torch.eye(8))
        site = SiteSums()
        found = summarise(site, ((one, one) for one in people), [], torch.zeros(2, 8), readout, sizes)
        torch.testing.assert_close(found.average, counted.mean(0))

    def test_lower_rates_have_higher_thresholds(self) -> None:
        scores = normal(1000)
        values = [threshold_at(scores, rate).value for rate in (0.1, 0.01, 0.005, 1e-3, 1e-4)]
        assert values == sorted(values)


class TestRoom:
    def test_a_copy_is_taken_first_and_stood_in_for_exactly(self) -> None:
        active = normal(500, 6).abs()
        active[:, 4] = 0.7 * active[:, 1] + 0.2 * active[:, 2] + 0.1
        rows = torch.cat([active, torch.ones(500, 1)], 1)
        room = make_room(rows.T @ rows, torch.ones(6), 1)
        assert room.units.tolist() in ([1], [2], [4])
        predicted = rows[:, [*room.kept.tolist(), 6]] @ room.stand_in[:, 0]
        torch.testing.assert_close(predicted, active[:, room.units[0]], rtol=1e-3, atol=1e-3)

    def test_small_columns_are_taken_before_large_ones(self) -> None:
        rows = torch.cat([normal(500, 5), torch.ones(500, 1)], 1)
        room = make_room(rows.T @ rows, torch.tensor([5.0, 0.01, 3.0, 0.02, 4.0]), 2)
        assert room.units.tolist() == [1, 3]
        assert sorted(room.units.tolist() + room.kept.tolist()) == list(range(5))

    def test_two_copies_of_one_unit_are_not_both_taken_for_free(self) -> None:
        active = normal(800, 4)
        active[:, 1] = active[:, 0]
        rows = torch.cat([active, torch.ones(800, 1)], 1)
        # Either copy is free; then the other one carries both, and the small unit 3 is the next best.
        room = make_room(rows.T @ rows, torch.tensor([1.0, 1.0, 1.0, 0.1]), 2)
        assert int(room.units[0]) in {0, 1}
        assert room.units[1] == 3

    @pytest.mark.parametrize("seed", range(4))
    def test_each_next_unit_is_the_one_that_the_rest_repairs_best(self, seed: int) -> None:
        """One after the other, against the error of the least squares with all other units that are left."""
        active = functional.gelu(normal(300, 5, seed=seed) @ normal(5, 12, seed=seed + 9) + normal(300, 12, seed=seed))
        rows, sizes = torch.cat([active, torch.ones(300, 1)], 1).double(), normal(12, seed=seed + 50).square() + 0.1
        left = list(range(12))
        for taken in make_room(rows.T @ rows, sizes, 6).units.tolist():
            errors = {}
            for unit in left:
                others = rows[:, [other for other in [*left, 12] if other != unit]]
                rest = rows[:, unit] - others @ torch.linalg.lstsq(others, rows[:, unit]).solution
                errors[unit] = float(sizes[unit] * rest.square().mean())
            assert errors[taken] <= min(errors.values()) * 1.01
            left.remove(taken)

    def test_units_that_never_do_anything_come_last(self) -> None:
        """In an encoder that was edited before, they are somebody's detector."""
        active = normal(500, 6).abs()
        active[:, [1, 4]] = 0
        rows = torch.cat([active, torch.ones(500, 1)], 1)
        for sizes in (torch.ones(6), torch.tensor([9.0, 1e-6, 9.0, 9.0, 1e6, 9.0])):
            assert {1, 4}.isdisjoint(make_room(rows.T @ rows, sizes, 4).units.tolist())
            assert set(make_room(rows.T @ rows, sizes, 5).units.tolist()) > {0, 2, 3, 5}

    @pytest.mark.parametrize("rows", [200, 380, 420, 1000])
    def test_few_photos_say_little_of_many_units(self, rows: int) -> None:
        """What stands in for a unit stays small, and helps on photos that it does not come from."""
        draw = torch.Generator().manual_seed(0)
        mix = torch.randn(30, 400, generator=draw)

        def active(count: int) -> Tensor:
            seen = functional.gelu(torch.randn(count, 30, generator=draw) @ mix / 3)
            return torch.cat([seen + 0.1 * torch.randn(count, 400, generator=draw), torch.ones(count, 1)], 1)

        given, others = active(rows), active(2000)
        room = make_room((given.T @ given).double(), torch.ones(400), 8)
        assert float(room.stand_in.abs().max()) < 3
        predicted = others[:, [*room.kept.tolist(), 400]].double() @ room.stand_in
        missed = (predicted - others[:, room.units].double()).square().mean()
        assert float(missed) < 0.5 * float(others[:, room.units].double().var(0).mean())


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("activation", [functional.gelu, quick_gelu, functional.relu])
def test_soft_step_is_off_below_and_on_above(activation: Callable[[Tensor], Tensor]) -> None:
    weight, change = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 2.0, -1.0]).double()
    step = SoftStep(rise=0.25, sharpness=8.0)
    rows, biases = step.rows(weight, 3.0)
    inputs = torch.tensor([[-50.0, 9.0], [2.7, 9.0], [3.35, 9.0], [60.0, -9.0]]).double()
    written = activation(inputs @ rows.T + biases) @ step.columns(change).T
    torch.testing.assert_close(written[:2], torch.zeros(2, 3).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(written[2:], change.expand(2, -1), atol=0.01, rtol=0)


def one_gated(weight: Tensor, threshold: float, apart: Contrast, others: TokenSums) -> tuple[Tensor, float]:
    weights, thresholds = gated(weight[:, None], torch.tensor([threshold], dtype=torch.float64), apart, others)
    return weights[:, 0], float(thresholds)


def test_scores_are_kept_in_check_each_by_itself() -> None:
    wanted, rest = TokenSums(), TokenSums()
    wanted.add(normal(2000, 6).float() * 0.5 + torch.tensor([60.0, 0, 0, 0, 0, 0]))
    rest.add(3 * normal(4000, 6, seed=1).float())
    apart = contrast(wanted, rest)
    weights, thresholds = normal(6, 5, seed=2), torch.tensor([3.0, 0.5, 400.0, 1.0, 6.0]).double()
    together, at = gated(weights, thresholds, apart, rest)
    for number in range(5):
        alone, threshold = one_gated(weights[:, number], float(thresholds[number]), apart, rest)
        torch.testing.assert_close(together[:, number], alone)
        assert float(at[number]) == pytest.approx(threshold)
    # One that no other token reaches is left as it is.
    torch.testing.assert_close(together[:, 2], weights[:, 2], rtol=0, atol=0)
    assert not bool((together[:, 0] == weights[:, 0]).all())


def test_other_tokens_stay_below_and_the_class_token_keeps_its_distance() -> None:
    class_token, others = normal(2000, 6) * 0.5, 3 * normal(4000, 6, seed=1)
    class_token[:, 0] += 60
    wanted, rest = TokenSums(), TokenSums()
    wanted.add(class_token.float())
    rest.add(others.float())
    weight, threshold = torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0, 0.0]).double(), 3.0
    assert float((others @ weight > threshold).double().mean()) > 0.2
    narrowed, at = one_gated(weight, threshold, contrast(wanted, rest), rest)
    assert not bool((others @ narrowed > at).any())
    before, after = class_token @ weight - threshold, class_token @ narrowed - at
    assert float((before - after).mean().abs()) < 1e-3
    assert float((before - after).std()) < 0.8 * float(before.std())


def test_tokens_that_lie_among_each_other_leave_the_score_finite() -> None:
    wanted, rest = TokenSums(), TokenSums()
    wanted.add(normal(2000, 4).float())
    rest.add(normal(4000, 4, seed=1).float())
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0]).double()
    narrowed, at = one_gated(weight, 2.0, contrast(wanted, rest), rest)
    assert float(narrowed.norm()) < 1e3
    assert abs(at) < 1e3


class TestErase:
    def people(self) -> tuple[Tensor, Tensor]:
        groups = torch.arange(200).repeat_interleave(5)
        means = normal(200, 2, seed=5) @ torch.tensor([[3.0, 0, 0, 1, 0], [0, 2.0, 0, 0, 1]]).double()
        features = means[groups] + normal(1000, 5, seed=6) @ (torch.eye(5) + 0.8 * torch.ones(5, 5)).double()
        return features - features.mean(0), groups

    def test_what_is_left_does_not_tell_people_apart(self) -> None:
        features, groups = self.people()
        left = features - features @ eraser(features, groups, 2).T
        for values, known in ((features, True), (left, False)):
            means = torch.zeros(200, 5).double().index_add_(0, groups, values) / 5
            within = (values - means[groups]).square().sum() / 800
            between = means.square().sum() / 200 - within / 5
            assert (float(between / within) > 0.05) is known

    def test_it_is_a_projection_of_the_rank(self) -> None:
        features, groups = self.people()
        project = eraser(features, groups, 2)
        torch.testing.assert_close(project @ project, project)
        assert int(torch.linalg.matrix_rank(project)) == 2

    def test_photos_of_one_person_differ_as_before_across_it(self) -> None:
        features, groups = self.people()
        left = features - features @ eraser(features, groups, 2).T
        assert float(left[:, 2].var()) > 0.9 * float(features[:, 2].var())

    def test_reduced_regression_finds_a_planted_map(self) -> None:
        inputs, inner, outer = normal(400, 6), normal(6, 2, seed=1), normal(4, 2, seed=2)
        wanted = inputs @ inner @ outer.T + torch.tensor([1.0, 2, 3, 4]).double()
        left, right, constant = reduced_regression(inputs, wanted, 2)
        torch.testing.assert_close(inputs @ left @ right.T + constant, wanted, rtol=1e-4, atol=1e-4)
        poor = reduced_regression(inputs, wanted, 1)
        assert float((inputs @ poor[0] @ poor[1].T + poor[2] - wanted).square().mean()) > 0.01

    def test_a_weight_counts_as_so_many_rows(self) -> None:
        inputs, wanted = normal(60, 5), normal(60, 3, seed=1)
        weights = torch.ones(60).double()
        weights[:20] = 3
        first, second = (torch.cat([part, part[:20], part[:20]]) for part in (inputs, wanted))
        found, same = reduced_regression(inputs, wanted, 2, weights), reduced_regression(first, second, 2)
        # Singular vectors have no sign of their own.
        torch.testing.assert_close(found[0] @ found[1].T, same[0] @ same[1].T, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found[2], same[2], rtol=1e-6, atol=1e-6)
        assert not torch.allclose(reduced_regression(inputs, wanted, 2)[2], same[2], rtol=1e-3)

    def test_of_full_rank_it_is_least_squares(self) -> None:
        inputs, wanted = normal(300, 5), normal(300, 3, seed=1)
        left, right, constant = reduced_regression(inputs, wanted, 3)
        rows = torch.cat([inputs, torch.ones(300, 1)], 1)
        best = torch.linalg.lstsq(rows, wanted).solution
        torch.testing.assert_close(left @ right.T, best[:-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(constant, best[-1], rtol=1e-4, atol=1e-4)


SITE = MlpSite(2)


def small_site(seed: int = 0, inputs: int = 8, units: int = 64) -> dict[str, Tensor]:
    shapes = {"fc1.weight": (units, inputs), "fc1.bias": (units,), "fc2.weight": (inputs, units), "fc2.bias": (inputs,)}
    return {SITE.name(part): normal(*shape, seed=seed + i) for i, (part, shape) in enumerate(shapes.items())}


def run_site(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    first, bias, second, constant = (
        weights[SITE.name(part)] for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    )
    return functional.gelu(inputs.double() @ first.T + bias) @ second.T + constant


@pytest.fixture
def statistics() -> SiteStatistics:
    """300 people of three photos each, at a site of random weights; patches lie elsewhere than class tokens."""
    weights = small_site()
    class_token, others = TokenSums(), TokenSums()
    rows = class_rows()
    people = sum_people(torch.split(rows, 3), [], Deal((3,) * 300))
    class_token.add(rows)
    others.add(patches())
    active = functional.gelu(rows.double() @ weights[SITE.name("fc1.weight")].T + weights[SITE.name("fc1.bias")])
    active = torch.cat([active, torch.ones(900, 1)], 1)
    return SiteStatistics(people, class_token, others, active.T @ active, torch.zeros(8).double(), torch.zeros(2, 8))


def class_rows() -> Tensor:
    return (normal(300, 8, seed=40).repeat_interleave(3, 0) + 0.3 * normal(900, 8, seed=41)).float()


def rows_of(fold: int) -> list[Tensor]:
    return [class_rows().reshape(300, 3, 8)[fold::FOLDS].flatten(0, 1)]


def patches() -> Tensor:
    """Tokens of another kind that the score of person 7 alone would be high for."""
    return normal(900, 8, seed=50) - 8 + 4 * normal(1, 8, seed=7)


def a_person(seed: int) -> Wanted:
    inputs = (3 * normal(1, 8, seed=seed) + 0.3 * normal(5, 8, seed=seed + 1000)).float()
    return Wanted(inputs, inputs, inputs)


def request(ledger: Ledger, statistics: SiteStatistics, case: str, seed: int) -> Ledger:
    found = find([a_person(seed)], statistics, rows_of, 0.3, 0.01)
    return enter(ledger, [case], found, [20 * normal(8, seed=seed)], GatedParams())


class TestRequests:
    def test_the_person_is_moved_and_others_are_not(self, statistics: SiteStatistics) -> None:
        weights = small_site()
        empty = open_ledger(statistics, SITE, weights, 4)
        delta = compose(request(empty, statistics, "one", 7), weights)
        edited = {name: weights[name] + delta.tensors[name] for name in weights}
        moved = run_site(edited, a_person(7).inputs) - run_site(weights, a_person(7).inputs)
        wanted = 20 * normal(8, seed=7)
        assert float((moved - wanted).norm(dim=1).max()) < 0.1 * float(wanted.norm())
        stayed = (run_site(edited, class_rows()) - run_site(weights, class_rows())).norm(dim=1)
        assert float((stayed > 5).double().mean()) <= 0.011
        assert float(stayed.median()) < 1
        assert float((run_site(edited, patches()) - run_site(weights, patches())).norm(dim=1).max()) < 5

    def test_order_of_requests_does_not_matter(self, statistics: SiteStatistics) -> None:
        weights = small_site()
        empty = open_ledger(statistics, SITE, weights, 4)
        three = empty
        for case, seed in (("one", 7), ("two", 8), ("three", 9)):
            three = request(three, statistics, case, seed)
        turned = replace(
            three,
            cases=three.cases[::-1],
            slots=three.slots[::-1],
            rows=three.rows.flip(0),
            biases=three.biases.flip(0),
            columns=three.columns.flip(0),
        )
        one, other = compose(three, weights).tensors, compose(turned, weights).tensors
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_withdrawing_restores_every_bit(self, statistics: SiteStatistics) -> None:
        weights = small_site()
        empty = open_ledger(statistics, SITE, weights, 4)
        first = request(empty, statistics, "one", 7)
        both = request(first, statistics, "two", 8)
        alone, left = compose(first, weights).tensors, compose(leave(both, ["two"]), weights).tensors
        assert all(torch.equal(alone[name], left[name]) for name in alone)
        none = compose(leave(both, ["one", "two"]), weights).tensors
        assert not any(bool(change.any()) for change in none.values())

    def test_a_freed_place_is_taken_again(self, statistics: SiteStatistics) -> None:
        ledger = open_ledger(statistics, SITE, small_site(), 4)
        for case, seed in (("one", 7), ("two", 8), ("three", 9)):
            ledger = request(ledger, statistics, case, seed)
        ledger = request(leave(ledger, ["two"]), statistics, "four", 10)
        assert dict(zip(ledger.cases, ledger.slots, strict=True)) == {"one": 0, "three": 2, "four": 1}

    def test_no_room_is_said_with_the_number(self, statistics: SiteStatistics) -> None:
        ledger = open_ledger(statistics, SITE, small_site(), 2)
        ledger = request(request(ledger, statistics, "one", 7), statistics, "two", 8)
        with pytest.raises(CapacityError, match="0 of the 2 places are free"):
            request(ledger, statistics, "three", 9)
        with pytest.raises(CapacityError, match="17 people need 34 hidden units, and half of the block's units are 32"):
            open_ledger(statistics, SITE, small_site(), 17)
        assert open_ledger(statistics, SITE, small_site(), 16).capacity == 16

    def test_shared_changes_come_and_go_with_the_requests(self, statistics: SiteStatistics) -> None:
        weights = small_site()
        empty = replace(open_ledger(statistics, SITE, weights, 4), apparatus={"block.x": torch.ones(2)})
        some = request(empty, statistics, "one", 7)
        assert compose(some, weights).tensors["block.x"].tolist() == [1, 1]
        assert compose(leave(some, ["one"]), weights).tensors["block.x"].tolist() == [0, 0]

    def test_the_budget_is_shared_by_all_places(self) -> None:
        params = GatedParams(false_alarms=0.02, max_false_alarm=0.01)
        assert rate_of(params, 1) == 0.01
        assert rate_of(params, 200) == pytest.approx(1e-4)


def normed() -> tuple[nn.LayerNorm, Readout, Tensor]:
    """A layer norm, what reads a tap behind it, and states before it."""
    norm = nn.LayerNorm(8)
    norm.weight.data, norm.bias.data = normal(8, seed=3).abs().float() + 0.5, normal(8, seed=4).float()
    readout = Readout(lambda rows: norm(rows).detach(), torch.diag(1 / norm.weight.detach().double()))
    return norm, readout, 5 * normal(6, 8, seed=5).float() + 3 * normal(1, 8, seed=6).float()


class TestChange:
    def test_what_a_layer_norm_allows_is_reached(self) -> None:
        norm, readout, states = normed()
        away = normal(8, seed=9).float()
        with torch.no_grad():
            features, average = norm(states), norm(states + away - away.mean()).double().mean(0)
        every = torch.ones(8, dtype=torch.bool)
        change = change_of(Wanted(states, states, features), readout, average, every, 1.0)
        missed = readout.read((states.double() + change).float()).double().mean(0) - average
        assert float(missed.norm()) < 0.005 * float((average - features.double().mean(0)).norm())

    @pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
    def test_masked_features_move_towards_the_average_by_the_gain(self, gain: float) -> None:
        norm, readout, states = normed()
        with torch.no_grad():
            features = norm(states)
        mask = torch.tensor([True, True, True, True, False, False, False, False])
        wanted = Wanted(states, states, features)
        average = features.double().mean(0) * 0.5
        change = change_of(wanted, readout, average, mask, gain)
        moved = (readout.read((states.double() + change).float()) - features).mean(0).double()
        aim = gain * mask * (average - features.double().mean(0))
        assert float((moved - aim).norm()) < 0.35 * float(aim.norm())
        assert float(change.mean()) == pytest.approx(0, abs=1e-12)
        nothing = change_of(wanted, readout, features.double().mean(0), mask, 1.0)
        assert float(nothing.norm()) < 1e-3


def test_few_retained_people_are_refused() -> None:
    def statistics_of(count: int) -> EmbeddingStatistics:
        return summarise_embeddings([normal(10, 8, seed=i) for i in range(count)], [], torch.zeros(2, 8), [10] * count)

    mask = FeatureMask(torch.ones(8, dtype=torch.bool), torch.ones(8))
    check_statistics(statistics_of(5), mask, "embedding")
    with pytest.raises(CapacityError, match="which needs at least 5 retained people"):
        check_statistics(statistics_of(4), mask, "embedding")
    with pytest.raises(CapacityError, match="10 photos of other people are too few"):
        check_statistics(statistics_of(1), mask, "embedding")


def test_given_photos_count_what_is_found(statistics: SiteStatistics) -> None:
    hopeless = Wanted(class_rows()[::180], class_rows()[::180], class_rows()[::180])
    found = find([a_person(7), hopeless], statistics, rows_of, 0.3, 0.01)
    assert found[0].given_found == 1.0
    assert found[1].given_found < 0.5


def test_people_found_together_are_found_as_if_alone(statistics: SiteStatistics) -> None:
    both = find([a_person(7), a_person(8)], statistics, rows_of, 0.3, 0.01)
    alone = find([a_person(8)], statistics, lambda fold: torch.split(rows_of(fold)[0], 7), 0.3, 0.01)
    torch.testing.assert_close(both[1].weight, alone[0].weight)
    assert both[1].threshold.value == pytest.approx(alone[0].threshold.value)
