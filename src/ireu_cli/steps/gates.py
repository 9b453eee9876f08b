"""Closed-form unlearning of a face-embedding network: gates behind its output find people and move their embedding.

What `steps.gated` does inside a transformer block is done here on the output itself: the detector looks at the
embedding at length one, so that it is the same for both taps. Requests take slots and can be taken out again.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ireu_cli.maths.detector import PeopleSums, direction
from ireu_cli.models.onnx_gates import Gates
from ireu_cli.steps.gated import Found, Rows, free_slots, with_thresholds
from ireu_cli.values import GateLedger, WeightDelta


def find_embedded(
    wanted: Sequence[Tensor], people: PeopleSums, nulls: Tensor, rows: Rows, shrinkage: float, rate: float
) -> list[Found]:
    """Compute the detectors of some people.

    Args:
        wanted: of each person, the embeddings of photos and changed copies at length one, float (n, d).
        people: sums over the retained photos' embeddings at length one.
        nulls: (k, d), those of the null images, which are to score as the mean does.
        rows: the retained photos, to set the thresholds on.
        shrinkage: of the covariance within people.
        rate: share of other people's photos that may be taken for a person.
    """
    mean, whitener = people.mean(), people.whitener(shrinkage)
    weights = [direction(one.double().mean(0), mean, whitener, nulls.double()) for one in wanted]
    return with_thresholds(weights, wanted, rows, rate)


def change_of_embedding(photos: Tensor, average: Tensor, mask: Tensor, gain: float) -> Tensor:
    """What moves the person's masked features past the average: float64 (d,), as a share of the embedding's length.

    Args:
        photos: (n, d), the person's photos at length one.
        average: (d,), the mean of people at length one.
        mask: bool (d,); other features keep their place but for the common scale, which keeps the length.
        gain: 1 moves the person's mean to the average; photos differ from their mean, so more is needed for all.
    """
    return gain * mask * (average.double() - photos.double().mean(0))


def open_gates(people: int, width: int, rise: float) -> GateLedger:
    """A ledger without requests, with room for so many people in an embedding of so many features."""
    return GateLedger(people, (), (), torch.empty(0, width), torch.empty(0), torch.empty(0, width), rise)


def enter_gates(
    ledger: GateLedger, cases: Sequence[str], found: Sequence[Found], changes: Sequence[Tensor]
) -> GateLedger:
    """Add people to a ledger, each into the first free slot.

    Raises:
        CapacityError: there are no slots left; says how many there are.
    """
    free = free_slots(ledger, len(found))
    return replace(
        ledger,
        cases=(*ledger.cases, *cases),
        slots=(*ledger.slots, *free),
        weights=torch.cat([ledger.weights, *(one.weight[None].float() for one in found)]),
        thresholds=torch.cat([ledger.thresholds, torch.tensor([one.threshold.value for one in found])]),
        changes=torch.cat([ledger.changes, *(change[None].float() for change in changes)]),
    )


def leave_gates(ledger: GateLedger, cases: Sequence[str]) -> GateLedger:
    """Take the requests of some cases out of a ledger; their slots are free again."""
    kept = [i for i, case in enumerate(ledger.cases) if case not in cases]
    return replace(
        ledger,
        cases=tuple(ledger.cases[i] for i in kept),
        slots=tuple(ledger.slots[i] for i in kept),
        weights=ledger.weights[kept],
        thresholds=ledger.thresholds[kept],
        changes=ledger.changes[kept],
    )


def compose_gates(ledger: GateLedger) -> WeightDelta:
    """The gates that the ledger stands for, in the order of their slots, whatever the order of the requests was."""
    order = sorted(range(len(ledger.slots)), key=lambda i: ledger.slots[i])
    gates = Gates(ledger.weights[order], ledger.thresholds[order], ledger.changes[order], ledger.rise)
    return WeightDelta(gates.tensors(), ledger)
