"""What grows with the number of photos and people: calls and sizes of tensors are counted, never seconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ireu_cli.maths import calibration, detector, stats
from ireu_cli.maths.calibration import accepted, calibrate, pair_scores, thresholds
from ireu_cli.maths.detector import FOLDS, Deal, PeopleSums, sum_folds, sum_people, threshold_at
from ireu_cli.maths.identity import centred, fit_space
from ireu_cli.maths.stats import estimate, resampled_weights, weights_in_parts
from ireu_cli.measuring import matching
from ireu_cli.measuring.galleries import enrolled, gallery_of, matched
from ireu_cli.measuring.judgement import false_matches
from ireu_cli.measuring.matching import Evidence, PersonEvidence, compare
from ireu_cli.params import VerifyParams
from ireu_cli.support.runtime import generator
from ireu_cli.unlearning.gated import solve as gated_step
from ireu_cli.unlearning.gated.kept_sums import folds_tensors, read_folds
from ireu_cli.unlearning.gated.slots import add_entries
from ireu_cli.unlearning.gated.solve import directions, with_thresholds
from ireu_cli.values import GateLedger


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the number of values of the largest tensor that is made within it, and how many operators are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls += 1
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, Tensor):
                # What is expanded shares its values.
                self.values = max(self.values, one.untyped_storage().nbytes() // max(1, one.element_size()))
        return found


@contextmanager
def at_most(values: int) -> Iterator[None]:
    with Largest() as seen:
        yield
    assert seen.values <= values, f"a tensor of {seen.values} values was made, {values} are allowed"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crowd(sizes: Sequence[int], width: int = 8, spread: float = 0.6) -> list[Tensor]:
    """Unit vectors (n, width) of people with so many photos each."""
    rows = normal(len(sizes), width, seed=1).repeat_interleave(torch.tensor(sizes), 0)
    rows = torch.nn.functional.normalize(rows + spread * normal(sum(sizes), width, seed=2), dim=1).float()
    return list(torch.split(rows, list(sizes)))


class TestCalibration:
    def test_pairs_are_not_listed_before_they_are_sampled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calibration, "MOST_PAIRS", 1000)
        people = crowd([2] * 1500, 4)
        with at_most(8192 * 4):  # 4.5 million pairs
            impostor, genuine = pair_scores(people, generator(0))
        assert (len(impostor.values), len(genuine.values)) == (1000, 1000)

    def test_no_table_of_people_by_people_or_by_resamples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (calibration, stats):
            monkeypatch.setattr(module, "_CELLS", 20_000)
        monkeypatch.setattr(calibration, "MOST_PAIRS", 2000)
        people = crowd([2] * 800, 4)
        with at_most(60_000):  # 640,000 pairs of people, 80,000 draws
            calibrate(people, (0.01,), 0.3, 0.01, 100, generator(0))

    def test_weights_of_pairs_are_those_of_a_table_of_all_people(self) -> None:
        people = crowd([3, 1, 5, 2, 4, 2, 6])
        impostor, genuine = pair_scores(people, generator(0))
        weights = resampled_weights(7, 50, generator(1))
        limits = thresholds(impostor, (0.05, 0.2), weights)
        order = impostor.values.argsort(descending=True)
        for row, limit in zip(weights, limits, strict=True):
            share = (row[impostor.people[order]].prod(1)).cumsum(0)
            for rate, value in zip((0.05, 0.2), limit, strict=True):
                place = int((share <= rate * share[-1]).sum())
                assert float(value) == float(impostor.values[order][place])
        found = accepted(genuine, limits, weights)
        above = (genuine.values[:, None, None] > limits) * weights.T[genuine.people[:, 0]][..., None]
        torch.testing.assert_close(
            found, above.sum(0) / (weights @ torch.bincount(genuine.people[:, 0]).double())[:, None]
        )

    def test_many_people_are_gone_through_once_for_the_rates(self) -> None:
        """Not once a person: what is asked of pairs is asked of all of them at once."""
        assert asked(10) == asked(400)

    def test_resamples_are_the_same_in_whatever_parts_they_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = resampled_weights(30, 40, generator(5))
        groups = list(torch.split(normal(90), 3))
        known = estimate(groups, 200, generator(6))
        monkeypatch.setattr(stats, "_CELLS", 100)
        assert torch.equal(torch.cat(list(weights_in_parts(30, 40, generator(5)))), whole)
        with at_most(1000):
            found = estimate(groups, 200, generator(6))
        assert found == known


def asked(count: int) -> int:
    """Operators that rates of so many people take."""
    _, genuine = pair_scores(crowd([2] * count), generator(0))
    weights = torch.ones(1, count, dtype=torch.float64)
    with Largest() as seen:
        accepted(genuine, torch.zeros(1, 1, dtype=torch.float64), weights)
    return int(seen.calls)


class TestSums:
    @pytest.mark.parametrize("sizes", [[3] * 700, [1] * 900, [1, 200, 2, 2, 5, 1, 30] * 12])
    def test_sums_are_those_of_their_definition(self, sizes: list[int]) -> None:
        people, deal = [3 * part + 5 for part in crowd(sizes, 6)], Deal(tuple(sizes))
        found = sum_people(people, [torch.cat(people[:2])], deal)
        parts = [person[: deal.most].double() for person in people]
        for fold in (None, *range(FOLDS)):
            kept = [part for number, part in enumerate(parts) if fold is None or deal.fold(number) != fold]
            sums = found.every if fold is None else found.others[fold]
            rows = torch.cat(kept)
            own = torch.cat([part - part.mean(0) for part in kept])
            assert (sums.photos, sums.pairs) == (len(rows), len(rows) - len(kept))
            torch.testing.assert_close(sums.total, rows.sum(0))
            torch.testing.assert_close(sums.square, rows.T @ rows)
            torch.testing.assert_close(sums.within, own.T @ own, rtol=1e-9, atol=1e-9)

    def test_products_are_of_many_people(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        add = PeopleSums.add_people

        def counting(self: PeopleSums, people: Sequence[Tensor]) -> None:
            calls.append(sum(map(len, people)))
            add(self, people)

        monkeypatch.setattr(PeopleSums, "add_people", counting)
        sum_people(crowd([2] * 4000), [], Deal((2,) * 4000))
        assert len(calls) <= 8000 // detector.AT_ONCE + FOLDS
        assert sum(calls) == 8000

    def test_folds_are_told_without_going_through_all_people_each_time(self) -> None:
        class Sizes(tuple[int, ...]):
            gone_through = 0

            def __iter__(self) -> Iterator[int]:
                Sizes.gone_through += 1
                return super().__iter__()

        deal = Deal(Sizes([1] * 50))
        assert [deal.fold(number) for number in range(50)] == [number // 10 for number in range(50)]
        assert {deal.most for _ in range(50)} == {20}
        assert Sizes.gone_through <= 2

    def test_kept_sums_come_back_with_every_bit(self) -> None:
        people, deal = crowd([3] * 40), Deal((3,) * 40)
        sums = sum_folds(people, [torch.cat(people[:3])], deal)
        first, second = sums.together(), read_folds(folds_tensors(sums)).together()
        for one, other in zip((first.every, *first.others), (second.every, *second.others), strict=True):
            for name in ("photos", "pairs", "views", "by_person"):
                assert getattr(one, name) == getattr(other, name)
            for name in ("total", "square", "within", "between_views"):
                assert torch.equal(getattr(one, name), getattr(other, name))

    def test_thresholds_keep_the_highest_scores_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        people = crowd([2] * 3000, 4)
        deal = Deal((2,) * 3000)
        sums = sum_people(people, [], deal)
        given = [normal(5, 4, seed=i) for i in range(20)]
        found = directions(given, sums, torch.zeros(0, 4), 0.3)

        def rows(fold: int) -> Iterator[Tensor]:
            return iter(torch.split(torch.cat(people[fold::FOLDS]), 100))

        whole = with_thresholds(found, given, sums, rows, 0.01)
        monkeypatch.setattr(gated_step, "_KEPT", 100)
        with at_most(20 * 500):  # of 120,000 scores
            few = with_thresholds(found, given, sums, rows, 0.01)
        assert [one.threshold for one in few] == [one.threshold for one in whole]

    @pytest.mark.parametrize("rate", [0.2, 0.01, 1e-4])
    def test_the_highest_scores_say_what_all_say(self, rate: float) -> None:
        scores = normal(3000)
        needed = detector.highest_needed(3000, rate)
        assert threshold_at(scores.topk(needed).values, rate, 3000) == threshold_at(scores, rate)
        ordered = scores.sort(descending=True).values
        if rate >= 0.01:
            assert threshold_at(scores, rate).value == float(ordered[int(rate * 3001) - 1])

    def test_the_space_is_fitted_on_some_rows_at_a_time(self) -> None:
        people = [2 * part for part in crowd([3] * 400)]
        space = fit_space(people)
        rows, own = torch.cat(people).double(), torch.cat([part.double() - part.double().mean(0) for part in people])
        covariance = own.T @ own / 800
        torch.testing.assert_close(space.mean, rows.mean(0))
        ridge = 0.3 * covariance.diagonal().mean() * torch.eye(8, dtype=torch.float64)
        torch.testing.assert_close(space.whiten @ (covariance + ridge) @ space.whiten, torch.eye(8).double())
        assert max(len(part) for part, _ in centred(people, 100)) < 103


def test_slots_are_looked_up_and_not_gone_through() -> None:
    class Slots(tuple[int, ...]):
        def __contains__(self, _slot: object) -> bool:
            raise AssertionError("all slots are gone through for each place")

    ledger = GateLedger(9, ("a",) * 3, Slots((0, 2, 3)), torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, 4), 1.0)
    entries = {"weights": torch.ones(2, 4), "thresholds": torch.ones(2), "changes": torch.ones(2, 4)}
    assert add_entries(ledger, ["b", "c"], entries).slots == (0, 2, 3, 1, 4)


class TestVerification:
    def test_no_table_of_photos_by_photos_or_by_people(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(matching, "MOST_COMPARED", 40)
        monkeypatch.setattr(matching, "MOST_IMPOSTORS", 300)
        for name, value in (("_CELLS", 6000), ("_PIECE", 100)):
            monkeypatch.setattr(matching, name, value)
        evidence = evidence_of([2] * 1500)
        with at_most(3000 * 8 * 2):  # 9 million pairs of photos
            found = compare(evidence, VerifyParams())
        assert 20 <= len(found.retained) < 30
        assert len(found.look_alikes) == 150
        assert 20 <= len(found.alike) < 30

    def test_a_sample_says_what_all_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        evidence = evidence_of([4] * 200)
        whole = compare(evidence, VerifyParams())
        monkeypatch.setattr(matching, "MOST_COMPARED", 100)
        some = compare(evidence, VerifyParams())
        assert set(some.retained) < set(whole.retained)
        for position, scores in some.retained.items():
            for state in (0, 1):
                assert torch.equal(scores.match[state], whole.retained[position].match[state])
                assert torch.equal(scores.rank1[state], whole.retained[position].rank1[state])

    def test_comparisons_are_those_of_their_definition(self) -> None:
        evidence = evidence_of([1, 3, 5, 2, 2, 6] * 8)
        found = compare(evidence, VerifyParams(false_match_rate=0.05))
        mapped = [evidence.space(person.original) for person in evidence.retained]
        for position in (1, 2, 5, 40):
            others = torch.cat([rows for place, rows in enumerate(mapped) if place != position])
            rivals = torch.stack([unit(rows.mean(0)) for place, rows in enumerate(mapped) if place != position])
            for place, row in enumerate(mapped[position]):
                own = unit(torch.cat([mapped[position][:place], mapped[position][place + 1 :]]).mean(0))
                score = float(row @ own)
                limit = (others @ own).sort(descending=True).values[int(0.05 * len(others))]
                scores = found.retained[position]
                assert float(scores.similarity[0][place]) == pytest.approx(score)
                assert float(scores.match[0][place]) == float(score > limit)
                assert float(scores.rank1[0][place]) == float(score > (rivals @ row).max())
        assert bool(found.retained[0].match[0].isnan().all())

    def test_people_are_enrolled_once_against_a_gallery_made_once(self) -> None:
        people = [part.double() for part in crowd([3] * 30)]
        gallery = gallery_of([*people, torch.empty(0, 0)])
        pictures = normal(6, 8, seed=9)
        for position in (None, 4):
            one = enrolled(people[4], gallery, 0.1, position)
            others = torch.cat([rows for place, rows in enumerate(people) if place != position])
            limit = (others @ unit(people[4].mean(0))).sort(descending=True).values[int(0.1 * len(others))]
            assert one is not None
            assert one.threshold == pytest.approx(float(limit))
            assert matched(pictures, one).tolist() == (pictures @ unit(people[4].mean(0)) > limit).double().tolist()

    @pytest.mark.parametrize(
        ("photos", "people", "found"), [(200, 20, 2.0), (3000, 10, 0.9), (3000, 15, 2.1), (100, 60, 1.0)]
    )
    def test_many_photos_of_few_people_do_not_resolve_a_rate(self, photos: int, people: int, found: float) -> None:
        assert false_matches(photos, people, VerifyParams()) == pytest.approx(found)


def unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=0)


def evidence_of(sizes: Sequence[int]) -> Evidence:
    """Two targets of five photos, and retained people whom the edit hardly moves."""

    def person(rows: Tensor, seen: bool) -> PersonEvidence:
        moved = rows + 0.01 * normal(*rows.shape, seed=len(rows)).float()
        change = (moved - rows).norm(dim=1)
        flags = torch.full((len(rows),), seen)
        return PersonEvidence(rows, moved, torch.cosine_similarity(rows, moved), change, change, flags)

    targets = [person(rows, seen=True) for rows in crowd([5, 5])]
    return Evidence(targets, [person(rows, seen=False) for rows in crowd(sizes)], [], torch.zeros(2))
