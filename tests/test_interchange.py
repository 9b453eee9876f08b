"""Interchange curves: constructed people and a drawing function whose curves are known."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from ireu_cli.drawing.drawn_faces import Drawing
from ireu_cli.locating.interchanged import Exchanged, Interchanged, beside_random, interchange, measure, record
from ireu_cli.maths.interchange import Moves, area, compare, curve, halfway, moved
from ireu_cli.maths.stats import interval, resampled_weights
from ireu_cli.support.runtime import generator

IDENTITY, POSE, LIGHT, BORDER = slice(0, 8), slice(8, 12), slice(12, 16), slice(16, 20)
"""What the features of a constructed person decide; the effect of each group is linear."""
SHARES = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
SIDE = 32
_FRAME = np.ones((SIDE, SIDE, 1), bool)
_FRAME[4:-4, 4:-4] = False
_CORNERS = np.array([[10.0, 10.0], [20.0, 10.0], [15.0, 15.0], [11.0, 21.0], [19.0, 21.0]])


def drawing(features: torch.Tensor) -> Drawing:
    """Identity features are the face, the others move landmarks, brighten the picture, or set its border."""
    values = features.double().numpy()
    picture = np.full((SIDE, SIDE, 3), 40.0)
    picture[4:-4, 4:-4] += 100 * values[LIGHT].mean()
    picture[_FRAME[..., 0]] += 100 * values[BORDER].mean()
    landmarks = _CORNERS + 6 * values[POSE].mean()
    return Drawing(picture.round().astype(np.uint8), features[IDENTITY].clone(), landmarks)


def draw(features: torch.Tensor, seeds: Sequence[int]) -> list[Drawing]:
    assert len(features) == len(seeds)
    return [drawing(feature) for feature in features]


def pairs(count: int) -> list[Exchanged]:
    """A is all zeros and B all ones, each a little different from pair to pair."""
    rng = generator(0, "pairs")
    found = []
    for number in range(count):
        first, second = 0.01 * torch.rand(20, generator=rng), 1 - 0.01 * torch.rand(20, generator=rng)
        found.append(Exchanged(first, second, first[IDENTITY], second[IDENTITY], number))
    return found


def sweep(order: Sequence[int]) -> torch.Tensor:
    """Masks that take features from B in the given order, one for each share."""
    masks = torch.zeros(len(SHARES), 20, dtype=torch.bool)
    for row, share in zip(masks, SHARES, strict=True):
        row[list(order)[: round(share * 20)]] = True
    return masks


def moves_of(order: Sequence[int], count: int = 6) -> Moves:
    done = measure(pairs(count), [sweep(order)] * count, draw)
    assert done.moves is not None
    return done.moves


BEST = list(range(20))
WORST = BEST[::-1]
MIXED = [8, 0, 12, 1, 16, 9, 2, 13, 3, 17, 10, 4, 14, 5, 18, 11, 6, 15, 7, 19]


def test_a_mask_of_identity_moves_identity_alone() -> None:
    found = curve(moves_of(BEST), SHARES, 200, generator(0))
    assert [round(point.identity.value, 2) for point in found.points if point.identity] == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    rest = [point.rest.value for point in found.points if point.rest]
    assert max(rest[:4]) == pytest.approx(0, abs=0.01)
    assert rest[-1] == pytest.approx(1)
    assert found.area is not None
    assert found.half_share is not None
    assert found.half_rest is not None
    assert found.area.value == pytest.approx(0, abs=0.01)
    assert found.half_share.value == pytest.approx(0.2, abs=0.01)
    assert found.half_rest.value == pytest.approx(0, abs=0.01)


def test_a_mask_of_everything_else_moves_identity_last() -> None:
    found = curve(moves_of(WORST), SHARES, 200, generator(0))
    assert found.area is not None
    assert found.half_rest is not None
    assert found.half_share is not None
    assert found.area.value > 0.97
    assert found.half_rest.value > 0.97
    assert found.half_share.value == pytest.approx(0.8, abs=0.01)


def test_features_in_no_order_move_everything_alike() -> None:
    found = curve(moves_of(MIXED), SHARES, 200, generator(0))
    assert found.area is not None
    assert found.area.value == pytest.approx(0.5, abs=0.03)


def test_each_aspect_is_told_apart() -> None:
    """After identity come pose, then light, then the border."""
    aspects = curve(moves_of(BEST), SHARES, 200, generator(0)).points[4].aspects
    assert {name: round(found.value, 1) if found else None for name, found in aspects.items()} == {
        "pose": 1.0,
        "light": 0.0,
        "background": 0.0,
    }
    aspects = curve(moves_of(BEST), SHARES, 200, generator(0)).points[5].aspects
    assert aspects["background"] is not None
    assert aspects["light"] is not None
    assert aspects["background"].value == pytest.approx(0, abs=0.01)
    assert 0.2 < aspects["light"].value < 0.9


def test_curves_of_the_same_pairs_are_compared_pair_by_pair() -> None:
    better = compare(moves_of(BEST), moves_of(MIXED), 200, generator(0))
    assert better is not None
    assert better.high is not None
    assert better.high < -0.3


def test_tokens_are_interchanged_alike() -> None:
    first, second = torch.zeros(3, 2), torch.ones(3, 2)
    found = interchange(first, second, torch.tensor([[True, False], [True, True]]))
    assert found[0].tolist() == [[1, 0]] * 3
    assert found[1].tolist() == [[1, 1]] * 3


def test_the_seed_is_always_that_of_the_first_and_the_whole_is_not_drawn_again() -> None:
    seen: list[int] = []

    def watched(features: torch.Tensor, seeds: Sequence[int]) -> list[Drawing]:
        seen.extend(seeds)
        return draw(features, seeds)

    measure(pairs(2), [sweep(BEST)] * 2, watched)
    assert seen == [0] * (2 + 6) + [1] * (2 + 6)


def hide(when: Callable[[torch.Tensor], bool]) -> Callable[[torch.Tensor, Sequence[int]], list[Drawing]]:
    def hidden(features: torch.Tensor, seeds: Sequence[int]) -> list[Drawing]:
        drawn = draw(features, seeds)
        return [Drawing(d.picture, None, None) if when(f) else d for d, f in zip(drawn, features, strict=True)]

    return hidden


def test_a_pair_that_is_drawn_without_a_face_is_left_out_and_counted() -> None:
    lost = pairs(4)[1].second
    done = measure(pairs(4), [sweep(BEST)] * 4, hide(lambda f: torch.equal(f, lost)))
    assert done.left_out == 1
    assert done.moves is not None
    assert len(done.moves.identity) == 3
    assert measure(pairs(2), [sweep(BEST)] * 2, hide(lambda f: True)) == Interchanged(None, 2)


def test_an_interchange_that_loses_the_face_never_counts_as_moved() -> None:
    """Where most pictures have no face there is no figure, and so no area; where few have none, they are counted."""
    half_b = hide(lambda f: 0.15 < float(f.mean()) < 0.25)
    found = measure(pairs(4), [sweep(BEST)] * 4, half_b)
    assert found.moves is not None
    told = curve(found.moves, SHARES, 100, generator(0))
    assert [point.without_face for point in told.points] == [0, 4, 0, 0, 0, 0, 0]
    assert told.points[1].identity is None
    assert told.points[1].rest is None
    assert told.area is None
    assert told.half_share is None
    lone = pairs(4)[0].second
    few = measure(pairs(4), [sweep(BEST)] * 4, hide(lambda f: bool((f[:4] == lone[:4]).all() and f[4] < 0.5)))
    assert few.moves is not None
    point = curve(few.moves, SHARES, 100, generator(0)).points[1]
    assert point.without_face == 1
    assert point.identity is not None
    assert point.identity.value == pytest.approx(0.5, abs=0.01)


def test_with_fewer_than_half_the_faces_there_is_no_figure() -> None:
    firsts = [pair.second[:4] for pair in pairs(4)[:3]]
    lost = hide(lambda f: float(f[4]) < 0.5 and any(bool((f[:4] == first).all()) for first in firsts))
    found = measure(pairs(4), [sweep(BEST)] * 4, lost)
    assert found.moves is not None
    point = curve(found.moves, SHARES, 100, generator(0)).points[1]
    assert point.without_face == 3
    assert point.identity is None


def test_a_face_that_is_neither_person_is_half_way() -> None:
    """Losing A counts as much as gaining B: with the masked feature gone, the face is nobody's."""
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)

    def gone(features: torch.Tensor, seeds: Sequence[int]) -> list[Drawing]:
        return [Drawing(picture, torch.zeros(2) if f.sum() == 0 else f, _CORNERS) for f in features]

    pair = Exchanged(one, other, one, other, 0)
    done = measure([pair], [torch.tensor([[True, False], [True, True]])], gone)
    assert done.moves is not None
    assert (done.moves.identity[0] / done.moves.identity_span[0]).tolist() == [0.5, 1.0]


def test_people_whom_the_generator_draws_alike_give_no_figure() -> None:
    moves = moves_of(BEST)
    alike = Moves(moves.identity, -moves.identity_span, moves.rest, 0 * moves.rest_span)
    found = curve(alike, SHARES, 100, generator(0))
    assert found.points[0].identity is None
    assert found.points[0].rest is None
    assert found.area is None


def test_moved_is_a_ratio_of_sums() -> None:
    identity = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    rest = torch.tensor([[[1.0]], [[0.0]]], dtype=torch.float64)
    moves = Moves(identity, torch.tensor([1.0, 9.0]).double(), rest, torch.tensor([[2.0], [2.0]]).double())
    share, other = moved(moves, torch.tensor([[1.0, 1.0], [2.0, 0.0]]).double())
    assert share[:, 0].tolist() == [0.4, 1.0]
    assert other[:, 0, 0].tolist() == [0.25, 0.5]


def test_area_and_halfway_by_hand() -> None:
    identity, rest = torch.tensor([[0.4, 0.55, 1.0]]).double(), torch.tensor([[0.0, 0.3, 1.0]]).double()
    assert float(area(identity, rest)) == pytest.approx(0.0225 + 0.2925)
    share, other = halfway(torch.tensor([0.1, 0.5, 1.0]).double(), identity, rest)
    assert float(share) == pytest.approx(0.1 + 0.4 * 2 / 3)
    assert float(other) == pytest.approx(0.2)
    never = halfway(torch.tensor([0.1, 0.5, 1.0]).double(), 0.4 * identity, rest)
    assert math.isnan(float(never[0]))


def test_a_sweep_that_does_not_end_with_everything_has_no_area() -> None:
    assert curve(moves_of(BEST).points([0, 1, 2]), SHARES[:3], 100, generator(0)).area is None


def test_intervals_hold_the_sample_and_widen_with_what_is_unknown() -> None:
    weights = resampled_weights(50, 400, generator(0))
    assert weights[0].tolist() == [1.0] * 50
    assert bool((weights.sum(1) == 50).all())
    values = torch.arange(50).double()
    found = interval(weights @ values / 50)
    assert found is not None
    assert found.value == 24.5
    assert found.low == pytest.approx(24.5 - 1.96 * 14.4 / 50**0.5, abs=0.6)
    assert found.high == pytest.approx(24.5 + 1.96 * 14.4 / 50**0.5, abs=0.6)
    assert interval(torch.tensor([math.nan, 1.0])) is None
    unknown = torch.cat([torch.ones(1), torch.full((10,), math.nan), torch.ones(90)])
    assert (interval(unknown).low, interval(unknown).high) == (None, None)  # type: ignore[union-attr]
    told = interval(torch.cat([torch.ones(1), torch.full((1,), math.nan), torch.linspace(0, 2, 99)]))
    assert told is not None
    assert told.low == pytest.approx(0.03, abs=0.03)
    assert told.high == pytest.approx(1.97, abs=0.03)
    assert resampled_weights(2, 400, generator(0)).tolist() == [[1.0, 1.0]]


def test_the_record_of_a_mask_stands_beside_random_ones() -> None:
    mask = torch.zeros(20, dtype=torch.bool)
    mask[IDENTITY] = True
    masks = [beside_random(mask, 3, number) for number in range(12)]
    assert all(int(rows.sum(1)[0]) == int(rows.sum(1)[1]) == 8 for rows in masks)
    assert len({tuple(rows[1].tolist()) for rows in masks}) > 6
    found = record(measure(pairs(12), masks, draw), 0.4, 3)
    assert (found["pairs"], found["pairs_without_face"], found["share"]) == (12, 0, 0.4)
    assert found["mask"]["identity"]["value"] == pytest.approx(1, abs=0.01)
    assert found["mask"]["rest"]["value"] == pytest.approx(0, abs=0.01)
    assert found["random"]["identity"]["value"] == pytest.approx(0.4, abs=0.15)
    assert found["random"]["background"]["value"] == pytest.approx(0.4, abs=0.25)
    assert found["random"]["without_face"] == 0
    assert found["identity_span"]["value"] == pytest.approx(7.84, abs=0.02)
    assert found["identity_span"]["low"] < found["identity_span"]["value"] < found["identity_span"]["high"]
    nothing = record(Interchanged(None, 4), 0.4, 3)
    assert nothing == {
        "share": 0.4,
        "pairs": 0,
        "pairs_without_face": 4,
        "identity_span": None,
        "mask": None,
        "random": None,
    }
