"""Compare a figure with its limit."""

from collections.abc import Sequence
from typing import Literal

from ireu_cli.maths.calibration import false_pairs
from ireu_cli.params import VerifyParams
from ireu_cli.report import Control, Criterion, Outcome

Sense = Literal["at most", "at least"]

OTHERS_STAY = "other_person_fails"
"""The control that a delta does not look like the removal of people other than its targets."""


def control(name: str, found: float | None, needed: float, meaning: str, generator: str | None = None) -> Control:
    """A precondition; it is met if the figure was measured and reaches what is needed."""
    met = found is not None and found >= needed
    return Control(name=name, generator=generator, met=met, found=found, needed=needed, meaning=meaning)


def others_stay(removed: Sequence[float | None], params: VerifyParams, generator: str | None = None) -> Control:
    """The control that the criteria for targets tell targets from other people.

    Args:
        removed: for every measure, the share of retained people whom these criteria would call removed if they were the
            target; None if nobody can be counted.
        params: the limit on that share.
        generator: the generator of the pictures.
    """
    shares = [share for share in removed if share is not None]
    return control(
        OTHERS_STAY,
        1 - max(shares) if shares else None,
        1 - params.max_others_removed,
        "share of retained people whom the criteria for targets do not call removed; for them this is the delta of "
        "another person, so the criteria have to fail",
        generator,
    )


def criterion(
    name: str, found: float | None, sense: Sense, threshold: float, meaning: str, generator: str | None = None
) -> Criterion:
    """A limit on a figure; inconclusive if the figure was not measured."""
    outcome: Outcome = "inconclusive"
    if found is not None:
        outcome = "pass" if (found <= threshold if sense == "at most" else found >= threshold) else "fail"
    return Criterion(
        name=name,
        generator=generator,
        outcome=outcome,
        found=found,
        threshold=threshold,
        sense=sense,
        meaning=meaning,
    )


def false_matches(photos: int, people: int, params: VerifyParams) -> float:
    """The expected number of false matches among retained photos, limited by the number of people.

    Many photos of few people only describe the two people who happen to look most alike. As for recognisers, one pair
    of people is expected to be taken for the same person; if only a fraction of a pair is expected, at most that
    fraction of the needed matches counts.
    """
    return false_matches_at(params.false_match_rate, photos, people, params)


def false_matches_at(rate: float, photos: int, people: int, params: VerifyParams) -> float:
    """The same at another rate."""
    return min(photos * rate, params.min_impostors_per_error * false_pairs(people, rate))
