"""Unlearn in closed form: two hidden units find a person and move the person's features to an anonymous average.

There is no gradient step. Statistics of the retained photos are collected once (`SiteStatistics`). A request then costs
two small solves a person and uses two units of the site from a fixed reserve. Requests do not affect each other, so
they add up. Withdrawing one leaves every other unchanged and gives the rest of the weights their original bits.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.errors import ArtifactError, CapacityError
from ireu_cli.maths.detector import Deal as Deal
from ireu_cli.maths.detector import (
    PeopleInFolds,
    PeopleSums,
    Threshold,
    Whitened,
    direction,
    highest_needed,
    threshold_at,
)
from ireu_cli.maths.room import HiddenLayer, make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.maths.token_gate import TokenSums, contrast, gated
from ireu_cli.params import GatedParams, Tap
from ireu_cli.unlearning.gated.slots import add_all, add_entries, units_in_order
from ireu_cli.values import UNITS_EACH, Ledger, PooledLedger, Room, WeightDelta, most_people

_PASSES = 8
"""Passes of the fixed-point iteration that corrects for the layer norm after the site; each pass gains a digit."""

_KEPT = 8192
"""The number of extra scores that are kept before the highest are selected."""

MakeRoom = Callable[[Tensor, Tensor, int], Room]
"""`maths.room.make_room`."""
Rows = Callable[[int], Iterable[Tensor]]
"""A function that iterates over the detectors' inputs for the retained photos of a fold, in pieces (n, d)."""


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of retained photos at a site; computed once for an encoder and a set of photos.

    `people` has sums of the site's inputs at the class token. `class_token` and `others` have sums for the two kinds of
    token; a pooling head has no others. `gram` float64 (n + 1, n + 1) has sums of products of the hidden units'
    activations, with a constant 1 as the last. `average` (k,) is the mean of the tap's features. `nulls` (2, d) are the
    null images' inputs at the class token.
    """

    people: PeopleInFolds
    class_token: TokenSums
    others: TokenSums
    gram: Tensor
    average: Tensor
    nulls: Tensor


@dataclass(frozen=True)
class Wanted:
    """One person to unlearn.

    `inputs` (copies, d) are the site's inputs at the class token, for all photos and their changed copies. `states`
    (photos, d) are the class tokens after the last block, and `features` (photos, k) those at the tap.
    """

    inputs: Tensor
    states: Tensor
    features: Tensor


@dataclass(frozen=True)
class Readout:
    """From the class token after the last block to the tap: `read` (n, d) to (n, k), and its `inverse` (d, k).

    The inverse is that of the linear part after the layer norm. So a change of the tap, times the deviation of the
    token's channels, is a change of the token. If it is not `normed`, a change of the tap already is a change of the
    token.
    """

    read: Callable[[Tensor], Tensor]
    inverse: Tensor
    normed: bool = True


def readout_of(encoder: HasBlocks, tap: Tap) -> Readout:
    """The readout of `pooled` or `image_embeds`."""
    model = encoder.model
    inverse = encoder.readout_inverse(model, tap)
    return Readout(lambda states: encoder.read_out(model, states, tap), inverse, encoder.has_class_token)


@dataclass(frozen=True)
class Found:
    """The detector of one person: the score's weight (d,), its threshold, and the share of given photos it finds."""

    weight: Tensor
    threshold: Threshold
    given_found: float


def rate_of(params: GatedParams, places: int) -> float:
    """The false-alarm rate of each person: an equal share of the budget, at most `max_false_alarm`."""
    return min(params.max_false_alarm, params.false_alarms / places)


def find(
    wanted: Sequence[Wanted], statistics: SiteStatistics, rows: Rows, shrinkage: float, rate: float
) -> list[Found]:
    """Compute the detectors of some people, in two passes over the retained photos, however many people there are.

    Thresholds are set on strangers' scores: each fold's photos are scored by detectors made from other folds' people.

    Args:
        wanted: the people.
        statistics: statistics of the retained photos.
        rows: the retained photos, for the thresholds.
        shrinkage: shrinkage of the covariance within people.
        rate: share of other people's photos that may be mistaken for a person.
    """
    given, people = [one.inputs for one in wanted], statistics.people
    plain = directions(given, people, statistics.nulls, shrinkage)
    if not statistics.others.count:
        return with_thresholds(plain, given, people, rows, rate)
    margins = _margins(plain.others, people, rows, rate)
    apart = contrast(statistics.class_token, statistics.others)

    def kept_out(weights: Tensor, sums: PeopleSums) -> Tensor:
        thresholds = sums.mean() @ weights + torch.tensor([margin.value for margin in margins], dtype=torch.float64)
        return gated(weights, thresholds, apart, statistics.others)[0]

    # Thresholds are set again, because keeping other tokens out spreads the class token's scores a little.
    return with_thresholds(plain.map(kept_out, people), given, people, rows, rate)


@dataclass(frozen=True)
class Directions:
    """Directions of some people, a column each, float64 (d, n): from everybody, and from all but each fold's people."""

    every: Tensor
    others: tuple[Tensor, ...]

    def map(self, change: Callable[[Tensor, PeopleSums], Tensor], people: PeopleInFolds) -> "Directions":
        """Transform each with the sums that it comes from."""
        others = zip(self.others, people.others, strict=True)
        return Directions(change(self.every, people.every), tuple(change(weights, sums) for weights, sums in others))


def directions(given: Sequence[Tensor], people: PeopleInFolds, nulls: Tensor, shrinkage: float) -> Directions:
    """The directions that tell people from others; null images (k, d) get the same score as the mean.

    Args:
        given: for each person, the inputs to learn from, (n, d).
        people: the retained people.
        nulls: a detector's inputs for the null images.
        shrinkage: shrinkage of the covariance within people.
    """
    means = torch.stack([own.double().mean(0) for own in given])

    def of(one: Whitened) -> Tensor:
        return direction(means, one.mean, one.spread, one.factor, nulls.double())

    every, *others = (of(one) for one in people.whitened(shrinkage))
    return Directions(every, tuple(others))


def with_thresholds(
    found: Directions, given: Sequence[Tensor], people: PeopleInFolds, rows: Rows, rate: float
) -> list[Found]:
    """Set the thresholds of detectors on retained photos.

    Args:
        found: the directions of each person.
        given: for each person, the inputs to learn from, (n, d).
        people: the retained people.
        rows: their photos.
        rate: share of other people's photos that may be mistaken for a person.
    """
    mean, ready = people.every.mean(), []
    for weight, own, margin in zip(found.every.T, given, _margins(found.others, people, rows, rate), strict=True):
        threshold = replace(margin, value=float(weight @ mean) + margin.value)
        ready.append(Found(weight, threshold, float((own.double() @ weight > threshold.value).double().mean())))
    return ready


def _margins(weights: Sequence[Tensor], people: PeopleInFolds, rows: Rows, rate: float) -> list[Threshold]:
    """How far above the mean a score has to be, for each person; only the highest scores are kept."""
    highest, count = torch.empty(0, weights[0].shape[1], dtype=torch.float64), 0
    needed = highest_needed(people.every.photos, rate)
    for fold, (some, sums) in enumerate(zip(weights, people.others, strict=True)):
        for piece in rows(fold):
            scores = (piece.double() - sums.mean()) @ some
            highest, count = torch.cat([highest, scores]), count + len(scores)
            if len(highest) > needed + _KEPT:
                highest = highest.topk(needed, 0).values
    if highest_needed(count, rate) > len(highest):
        raise RuntimeError("the thresholds' photos are more than the summed ones")
    return [threshold_at(column, rate, count) for column in highest.T]


def change_of(wanted: Wanted, readout: Readout, average: Tensor, mask: Tensor, gain: float) -> Tensor:
    """The change of the class token that moves the person's masked features past the average: float64 (d,).

    Args:
        wanted: the person.
        readout: from token to tap.
        average: (k,), everybody's mean at the tap.
        mask: bool (k,); other features change only by the common scale of the layer norm.
        gain: 1 moves the person's mean to the average. Photos differ from their mean, so moving all of them needs more.
    """
    features, states = wanted.features.double(), wanted.states.double()
    aim = features + gain * mask * (average.double() - features.mean(0))
    change = torch.zeros(states.shape[1], dtype=torch.float64)
    scale = states.std(1, correction=0).mean() if readout.normed else 1.0
    for _ in range(_PASSES):
        missing = (aim - readout.read((states + change).float()).double()).mean(0)
        change = change + scale * readout.inverse.double() @ missing
        if readout.normed:
            change = change - change.mean()
    return change


def open_ledger(
    statistics: SiteStatistics,
    site: MlpSite,
    weights: dict[str, Tensor],
    people: int,
    room_by: Callable[[MakeRoom, Tensor, Tensor, int], Room] = lambda make, *given: make(*given),
) -> Ledger:
    """A ledger without requests, with room for a number of people.

    Args:
        statistics: statistics of the retained photos.
        site: where people are found.
        weights: the site's original tensors.
        people: the most people there will be.
        room_by: calls the function that makes room, or returns its earlier result for the same inputs.

    Raises:
        CapacityError: they would take more than half of the site's hidden units.
    """
    sizes = weights[site.name("fc2.weight")].square().sum(0)
    if people > most_people(len(sizes)):
        raise CapacityError(
            f"{people} people need {UNITS_EACH * people} hidden units, and half of the block's units are "
            f"{len(sizes) // 2}",
            f"Set gated.people to {most_people(len(sizes))} at most",
        )
    room = room_by(make_room, statistics.gram, sizes, UNITS_EACH * people)
    inputs = len(statistics.people.every.mean())
    empty = torch.empty(0, 2, inputs), torch.empty(0, 2), torch.empty(0, len(weights[site.name("fc2.bias")]), 2)
    return Ledger(site.block, room, (), (), *empty, {}, torch.empty(0))


def enter(
    ledger: Ledger, cases: Sequence[str], found: Sequence[Found], changes: Sequence[Tensor], params: GatedParams
) -> Ledger:
    """Add people to a ledger, each into the first free slot.

    Raises:
        CapacityError: there are not enough free slots; the error says how many there are.
    """
    step = SoftStep(params.rise, params.sharpness)
    built = [step.rows(one.weight, one.threshold.value) for one in found]
    return add_entries(
        ledger,
        cases,
        {
            "rows": torch.stack([rows for rows, _ in built]),
            "biases": torch.stack([biases for _, biases in built]),
            "columns": torch.stack([step.columns(change) for change in changes]),
        },
    )


def join(ledger: Ledger, other: Ledger) -> Ledger:
    """Add the requests of another ledger, which was made independently, in the order of its slots.

    Raises:
        ArtifactError: the two reserve different units, or change other weights in different ways.
        CapacityError: there are not enough free slots.
    """
    refuse_other_places(ledger, other, [])
    return add_all(ledger, other)


def refuse_other_places(
    ledger: Ledger | PooledLedger, other: Ledger | PooledLedger, more: Sequence[tuple[Tensor, Tensor]]
) -> None:
    """Refuse ledgers that reserve different places; `more` are pairs of tensors that have to be equal too.

    Raises:
        ArtifactError: they do, or they change other weights in different ways.
    """
    own, others = ledger.room, other.room
    rooms = [(own.units, others.units), (own.kept, others.kept), (own.stand_in, others.stand_in)]
    shared = [(ledger.apparatus.get(name), change) for name, change in other.apparatus.items()]
    same = ledger.block == other.block and len(ledger.apparatus) == len(other.apparatus)
    pairs = [*rooms, *more, (ledger.flag, other.flag), *shared]
    if not same or not all(a is not None and torch.equal(a, b) for a, b in pairs):
        raise ArtifactError(
            "The deltas do not reserve the same places: they were made from other retained photos, parameters or masks",
            "Make one of the requests again with --onto the other delta",
        )


def compose(ledger: Ledger, weights: dict[str, Tensor]) -> WeightDelta:
    """The change of the site's weights that the ledger describes.

    The same ledger gives the same bits, whatever the order of its requests. The change is exactly zero where no request
    reaches, and everywhere for an empty ledger.

    Args:
        ledger: the requests.
        weights: the site's four original tensors, from `MlpSite.weights`.
    """
    site, new = MlpSite(ledger.block), weights
    if ledger.slots:
        # One product in the order of slots depends only on the set of requests, whatever their order.
        order, _, places = units_in_order(ledger, UNITS_EACH)
        units = ledger.rows[order].flatten(0, 1), ledger.biases[order].flatten()
        columns = ledger.columns[order].transpose(0, 1).flatten(1)
        new = with_units(site, weights, ledger.room, places, *units, columns)
    return delta_of(ledger, weights, new, shared_in(ledger))


def shared_in(ledger: Ledger | PooledLedger) -> dict[str, Tensor]:
    """The changes that all requests of a ledger share; they are zero if it is empty."""
    return {name: change if ledger.slots else torch.zeros_like(change) for name, change in ledger.apparatus.items()}


def delta_of(
    ledger: Ledger | PooledLedger, weights: dict[str, Tensor], new: dict[str, Tensor], shared: dict[str, Tensor]
) -> WeightDelta:
    """The delta with a site's new tensors in place of the original ones, and with the shared changes."""
    own = {name: (new[name] - weights[name]).float() for name in new}
    return WeightDelta(dict(sorted((own | shared).items())), ledger)


def with_units(
    site: MlpSite, weights: dict[str, Tensor], room: Room, places: Tensor, rows: Tensor, biases: Tensor, columns: Tensor
) -> dict[str, Tensor]:
    """The site's four tensors with other units in places of its reserve; see `HiddenLayer.with_units`."""
    new = HiddenLayer(*(weights[name] for name in site.names)).with_units(room, places, rows, biases, columns)
    return dict(zip(site.names, (new.rows, new.biases, new.columns, new.constant), strict=True))
