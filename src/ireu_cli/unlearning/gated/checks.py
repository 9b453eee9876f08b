"""What the method `gated` does in the same way in a transformer block and behind a face-embedding network."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ireu_cli.encodings.lens import refuse_other_mask
from ireu_cli.errors import CapacityError
from ireu_cli.maths.detector import FOLDS
from ireu_cli.params import GatedParams
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.made import in_pieces
from ireu_cli.unlearning.gated.solve import Deal, Found, SiteStatistics
from ireu_cli.unlearning.gated.solve_network import EmbeddingStatistics
from ireu_cli.values import AnyLedger, FeatureMask, Json, People, WeightDelta

PIECE = 1024
"""The number of photos whose rows are in memory at once."""
FEWEST = 20
"""The fewest photos of other people for setting thresholds."""

MOSTLY = 0.8
"""The smallest share of a target's own photos that should be found; of photos never seen it will be smaller."""

Statistics = SiteStatistics | EmbeddingStatistics


def changeable(mask: FeatureMask, params: GatedParams) -> Tensor:
    """Features that may change: bool (d,)."""
    return mask.mask if params.confine else torch.ones_like(mask.mask)


def check_statistics(statistics: Statistics, mask: FeatureMask, tap: str) -> None:
    """Refuse photos and masks from which no detector can be made.

    Raises:
        CapacityError: there are too few retained photos.
        ArtifactError: the mask is for another tap.
    """
    every = statistics.people.every.photos
    if every < FEWEST:
        raise CapacityError(
            f"{every} photos of other people are too few to tell who else looks like a target",
            "Add people to the --retain folder, or lower data.retain_holdout",
        )
    folds = statistics.people.others
    if any(others.photos == every for others in folds):
        raise CapacityError(
            "A detector's threshold is set on other people than the detector is made from, which needs at least "
            f"{len(folds)} retained people",
            "Add people to the --retain folder, or lower data.retain_holdout",
        )
    if not statistics.people.are_told_apart:
        raise CapacityError(
            "The photos of other people are all the same to the encoder, or some features are not finite numbers",
            "Name photos of different people with --retain, and use an undamaged encoder",
        )
    refuse_other_mask(mask, len(statistics.average), tap)


def keys_in_folds(people: People) -> list[NDArray[np.uint8]]:
    """For each fold, the digests (n, 32) of its people's photos that count, in the same folds as in the statistics."""
    deal = Deal(tuple(sizes_of(people)))
    counted = people.photos.first(deal.most)
    folds = np.repeat(deal.folds, counted.sizes)
    return [counted.digests[folds == fold] for fold in range(FOLDS)]


def rows_by_person(get: Callable[[Sequence[str]], Tensor], people: People, *, whole: bool = False) -> Iterator[Tensor]:
    """Iterate over the rows of each person's photos, (n, …), reading some people at a time.

    Args:
        get: gives the rows of photos.
        people: the people, in the order of the results.
        whole: whether to read all photos, or only those that count in sums.
    """
    most = people.photos.total if whole else Deal(tuple(sizes_of(people))).most
    for piece in in_pieces((person[:most] for person in people.photos), PIECE):
        yield from torch.split(get([photo.sha256 for photos in piece for photo in photos]), list(map(len, piece)))


def kept_sums(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums from an earlier request, or new sums, which are kept."""
    found = read_tensors(path)
    if found is None:
        found = make()
        write_tensors(path, found)
    return found


def sizes_of(people: People) -> list[int]:
    """The number of photos of each person."""
    sizes: list[int] = people.photos.sizes.tolist()
    return sizes


def misses(found: Sequence[Found]) -> list[str]:
    """A warning about people who are hardly found even in the photos that their detector is made from, if any are."""
    low = sorted(one.given_found for one in found if one.given_found < MOSTLY)
    if not low:
        return []
    worst = f"{low[0]:.0%}" + (f" to {low[-1]:.0%}" if low[-1] > low[0] else "")
    return [
        f"{len(low)} of {len(found)} targets: the detector finds them in only {worst} of the given photos and their "
        "copies. Other people look similar to this encoder, or photos of the person are in the --retain folder"
    ]


def summary_of(
    delta: WeightDelta,
    ledger: AnyLedger,
    site: str,
    statistics: Statistics,
    found: Sequence[Found],
    rate: float,
) -> dict[str, Json]:
    """The manifest's entry for a request; `site` is where people are found and moved."""
    return {
        "edit_site": site,
        "places": {"taken": len(ledger.slots), "all": ledger.capacity},
        "false_alarm_rate_each": rate,
        "retained_photos": statistics.people.every.photos,
        "spread_within_people": statistics.people.every.labelled,
        "people": [
            {
                "threshold": one.threshold.value,
                "extrapolated": one.threshold.extrapolated,
                "given_found": one.given_found,
            }
            for one in found
        ],
        "tensors_changed": len(delta.tensors),
    }
