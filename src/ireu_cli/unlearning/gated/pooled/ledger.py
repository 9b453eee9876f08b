"""The ledger of people who are found in all tokens: open it, add people, join two, and turn it into a change."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.errors import ArtifactError, CapacityError
from ireu_cli.maths.detector import PeopleSums
from ireu_cli.maths.room import make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.params import GatedParams
from ireu_cli.unlearning.gated.edit_place import shared_changes, site_weights
from ireu_cli.unlearning.gated.pooled.gathering import LENGTH, SCORE_STEP, Gathering, heads_for
from ireu_cli.unlearning.gated.slots import add_all, add_entries, units_in_order
from ireu_cli.unlearning.gated.solve import Found, MakeRoom, delta_of, refuse_other_places, shared_in, with_units
from ireu_cli.unlearning.gated.tokens.replacing import Apparatus
from ireu_cli.values import PooledLedger, Room, WeightDelta

UNITS = 4
"""Hidden units a person: two that open, and two that take out again what the attention wrote."""
_READ, _WRITE = ("v_proj.weight", "v_proj.bias"), "out_proj.weight"


def open_pooled(
    site: MlpSite,
    weights: dict[str, Tensor],
    gram: Tensor,
    gathering: Gathering,
    carried: Apparatus,
    room_by: Callable[[MakeRoom, Tensor, Tensor, int], Room] = lambda make, *given: make(*given),
) -> PooledLedger:
    """A ledger without requests.

    Args:
        site: where people are found.
        weights: the site's original tensors.
        gram: float64 (n + 1, n + 1), products of the hidden units' activations, see `make_room`.
        gathering: the heads and directions.
        carried: what the next block does with flagged tokens.
        room_by: as for `open_ledger`.

    Raises:
        CapacityError: people would take more than half of the site's hidden units.
    """
    places = len(gathering.places["channels"])
    sizes = weights[site.name("fc2.weight")].square().sum(0)
    _refuse_units(len(sizes), places)
    width = len(weights[site.name("fc2.bias")])
    apparatus = shared_changes(gathering.changes, site.block) | shared_changes(carried.changes, site.block + 1)
    return PooledLedger(
        block=site.block,
        room=room_by(make_room, gram, sizes, UNITS * places),
        cases=(),
        slots=(),
        reads=torch.empty(0, width),
        offsets=torch.empty(0),
        thresholds=torch.empty(0),
        rises=torch.empty(0),
        sharpness=torch.empty(0),
        **gathering.places,
        apparatus=apparatus,
        flag=carried.flag,
    )


def refuse_too_many(model: Any, site: MlpSite, places: int) -> None:
    """Refuse people who would take more than half of a block's heads or hidden units, before the work starts.

    Raises:
        CapacityError: they would.
    """
    heads_for(model.vision_model.encoder.layers[site.block].self_attn, places)
    _refuse_units(int(site.module(model).fc1.out_features), places)


def _refuse_units(units: int, places: int) -> None:
    if 2 * UNITS * places > units:
        raise CapacityError(
            f"{places} people need {UNITS * places} hidden units, and half of the block's units are {units // 2}",
            f"Set gated.people to {units // (2 * UNITS)} at most",
        )


def enter_pooled(
    ledger: PooledLedger, cases: Sequence[str], found: Sequence[Found], people: PeopleSums, params: GatedParams
) -> PooledLedger:
    """Add people, each into the first free slot; their scores are in deviations of other people's.

    Args:
        ledger: the ledger to add to.
        cases: the name of each request.
        found: the detectors.
        people: sums of other people's averaged tokens.
        params: the width of the step.

    Raises:
        CapacityError: there are not enough free slots.
    """
    mean = people.mean()
    spread = people.square / people.photos - torch.outer(mean, mean)
    weights = torch.stack([one.weight for one in found])
    deviations = ((weights @ spread) * weights).sum(1).sqrt()
    middle, opening = weights @ mean, torch.tensor([one.threshold.value for one in found], dtype=torch.float64)
    entries = {
        "reads": weights / deviations[:, None],
        "offsets": -middle / deviations,
        "thresholds": (opening - middle) / deviations,
        "rises": params.rise / deviations,
        "sharpness": torch.full((len(found),), params.sharpness),
    }
    return add_entries(ledger, cases, entries)


def join_pooled(ledger: PooledLedger, other: PooledLedger) -> PooledLedger:
    """Add the requests of another ledger, which was made independently, in the order of its slots.

    Raises:
        ArtifactError: the two reserve different places, or change other weights in different ways.
        CapacityError: there are not enough free slots.
    """
    refuse_other_places(ledger, other, [(getattr(ledger, name), getattr(other, name)) for name in PooledLedger.SHARED])
    return add_all(ledger, other)


def compose_pooled(encoder: ImageEncoder, ledger: PooledLedger) -> WeightDelta:
    """The change of weights that a ledger describes: the same bits whatever the order of its requests.

    Raises:
        ArtifactError: the ledger is for another encoder.
    """
    return composed(ledger, weights_for(encoder, ledger))


def composed(ledger: PooledLedger, weights: dict[str, Tensor]) -> WeightDelta:
    """`compose_pooled`, for the site's four original tensors; all changes are zero for an empty ledger."""
    site, new, shared = MlpSite(ledger.block), weights, shared_in(ledger)
    if ledger.slots:
        order, slots, places = units_in_order(ledger, UNITS)
        new = with_units(site, weights, ledger.room, places, *_units(ledger, order, slots))
        channels = ledger.channels[slots]
        shared |= {name: shared[name].clone() for name in map(site.attention, (*_READ, _WRITE))}
        shared[site.attention(_READ[0])][channels] += ledger.reads[order]
        shared[site.attention(_READ[1])][channels] += ledger.offsets[order]
        shared[site.attention(_WRITE)][:, channels] += ledger.writers[slots].T
    return delta_of(ledger, weights, new, shared)


def _units(ledger: PooledLedger, order: Sequence[int], slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, biases and columns of the units of some entries, `UNITS` each.

    Every score that is written makes tokens vary more, so that the layer norm shows all of them as less. So units of a
    fuller ledger open earlier.

    Two units open for the person and write the flag. The difference of the other two is the score itself, whatever the
    activation (GELU, its sigmoid form and ReLU): act(s) - act(-s) = s.
    """
    shown = (1 + LENGTH**2 * (len(order) - 1) / ledger.writers.shape[1]) ** -0.5
    rows, biases, columns = [], [], []
    for entry, slot in zip(order, slots.tolist(), strict=True):
        step = SoftStep(shown * float(ledger.rises[entry]), float(ledger.sharpness[entry]))
        reader, rest, taker = ledger.readers[slot], ledger.rests[slot], ledger.takers[slot]
        opening = step.rows(
            reader, float(rest + shown * _opening(ledger.openings[slot], float(ledger.thresholds[entry])))
        )
        rows.append(torch.cat([opening[0], torch.stack([reader, -reader])]))
        biases.append(torch.cat([opening[1], torch.stack([-rest, rest])]))
        columns.append(torch.cat([step.columns(ledger.flag), torch.stack([taker, -taker], 1)], 1))
    return torch.cat(rows), torch.cat(biases), torch.cat(columns, 1)


def _opening(readings: Tensor, score: float) -> float:
    """The reading from which units open for a score, on the line between its neighbours, or through the outermost."""
    place = score / SCORE_STEP
    low = min(max(int(place), 0), len(readings) - 2)
    return float(torch.lerp(readings[low], readings[low + 1], place - low))


def weights_for(encoder: ImageEncoder, ledger: PooledLedger) -> dict[str, Tensor]:
    """The original weights of the site of a ledger that was read from a file.

    Raises:
        ArtifactError: the encoder has no such site, or the sizes differ.
    """
    width = ledger.reads.shape[1]
    heads = map(MlpSite(ledger.block).attention, (*_READ, _WRITE))
    if any(name not in ledger.apparatus for name in heads) or bool((ledger.channels >= width).any()):
        raise ArtifactError("The ledger of the delta lacks the heads that find people", "Use an undamaged copy")
    return site_weights(encoder, ledger, width, width)
