"""Unlearn from a face-embedding network in closed form: gates behind its output find people and move their embedding.

This does to the output itself what `solve.py` does inside a transformer block. The detector looks at the embedding at
length one, so that it is the same for both taps. Requests take slots and can be taken out again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ArtifactError
from ireu_cli.maths.detector import Deal, FoldSums, PeopleInFolds, sum_folds
from ireu_cli.unlearning.gated.slots import add_all, add_entries, by_slot
from ireu_cli.unlearning.gated.solve import Found, Rows, directions, with_thresholds
from ireu_cli.values import GateLedger, WeightDelta


@dataclass(frozen=True)
class EmbeddingStatistics:
    """Statistics of retained photos: sums over embeddings at length one, and the null images' embeddings (k, d)."""

    people: PeopleInFolds
    nulls: Tensor

    @property
    def average(self) -> Tensor:
        """The mean of people: float64 (d,)."""
        return self.people.every.mean()


def sum_embeddings(people: Iterable[Tensor], views: Iterable[Tensor], sizes: Sequence[int]) -> FoldSums:
    """Go through people once.

    Args:
        people: for each person, embeddings at length one, float (n, d).
        views: for some photos, embeddings of the photo and its changed copies, (v, d).
        sizes: number of photos of each person.
    """
    return sum_folds(people, views, Deal(tuple(sizes)))


def summarise_embeddings(
    people: Iterable[Tensor], views: Iterable[Tensor], nulls: Tensor, sizes: Sequence[int]
) -> EmbeddingStatistics:
    """`sum_embeddings`, combined with the embeddings at length one of the null images, (k, d)."""
    return EmbeddingStatistics(sum_embeddings(people, views, sizes).together(), nulls)


def find_embedded(
    wanted: Sequence[Tensor], statistics: EmbeddingStatistics, rows: Rows, shrinkage: float, rate: float
) -> list[Found]:
    """Compute the detectors of some people; null images get the same score as the mean.

    Args:
        wanted: for each person, the embeddings of photos and changed copies at length one, float (n, d).
        statistics: statistics of the retained photos.
        rows: the retained photos, for the thresholds.
        shrinkage: shrinkage of the covariance within people.
        rate: share of other people's photos that may be mistaken for a person.
    """
    found = directions(wanted, statistics.people, statistics.nulls, shrinkage)
    return with_thresholds(found, wanted, statistics.people, rows, rate)


def change_of_embedding(photos: Tensor, average: Tensor, mask: Tensor, gain: float) -> Tensor:
    """The change that moves the person's masked features past the average: float64 (d,), for embeddings of length one.

    Args:
        photos: (n, d), the person's photos at length one.
        average: (d,), the mean of people at length one.
        mask: bool (d,); other features change only by the common scale, which keeps the length.
        gain: 1 moves the person's mean to the average. Photos differ from their mean, so moving all of them needs more.
    """
    return gain * mask * (average.double() - photos.double().mean(0))


def open_gates(people: int, width: int, rise: float) -> GateLedger:
    """A ledger without requests, for a number of people and a number of features."""
    return GateLedger(people, (), (), torch.empty(0, width), torch.empty(0), torch.empty(0, width), rise)


def enter_gates(
    ledger: GateLedger, cases: Sequence[str], found: Sequence[Found], changes: Sequence[Tensor]
) -> GateLedger:
    """Add people to a ledger, each into the first free slot.

    Raises:
        CapacityError: there are not enough free slots; the error says how many there are.
    """
    return add_entries(
        ledger,
        cases,
        {
            "weights": torch.stack([one.weight for one in found]),
            "thresholds": torch.tensor([one.threshold.value for one in found]),
            "changes": torch.stack(list(changes)),
        },
    )


def join_gates(ledger: GateLedger, other: GateLedger) -> GateLedger:
    """Add the requests of another ledger, which was made independently, in the order of its slots.

    Raises:
        ArtifactError: they were made for other numbers of people, or with another `rise`.
        CapacityError: there are not enough free slots.
    """
    if (ledger.capacity, ledger.rise, ledger.weights.shape[1]) != (other.capacity, other.rise, other.weights.shape[1]):
        raise ArtifactError(
            f"The deltas do not reserve the same places: they have {ledger.capacity} and {other.capacity} places, "
            f"and gates with a rise of {ledger.rise:g} and {other.rise:g}",
            "Make one of the requests again with --onto the other delta",
        )
    return add_all(ledger, other)


def compose_gates(ledger: GateLedger) -> WeightDelta:
    """The gates that the ledger describes, in the order of their slots, whatever the order of the requests."""
    order = by_slot(ledger)
    gates = Gates(ledger.weights[order], ledger.thresholds[order], ledger.changes[order], ledger.rise)
    return WeightDelta(gates.tensors(), ledger)
