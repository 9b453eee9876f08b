"""A figure against what was asked of it."""

from collections.abc import Sequence
from typing import Literal

from ireu_cli.maths.calibration import false_pairs
from ireu_cli.params import VerifyParams
from ireu_cli.report import Control, Criterion, Outcome

Sense = Literal["at most", "at least"]

OTHERS_STAY = "other_person_fails"
"""The control that a delta says nothing of the removal of people other than its targets."""


def control(name: str, found: float | None, needed: float, meaning: str, generator: str | None = None) -> Control:
    """A precondition, met when the figure was found and reaches what is needed."""
    met = found is not None and found >= needed
    return Control(name=name, generator=generator, met=met, found=found, needed=needed, meaning=meaning)


def others_stay(removed: Sequence[float | None], params: VerifyParams, generator: str | None = None) -> Control:
    """The control that the criteria on targets tell targets from others.

    Args:
        removed: by every measure, the share of retained people whom these criteria would call removed, were they the
            target; None where nobody can be asked.
        params: how many may be.
        generator: whose pictures were asked.
    """
    shares = [share for share in removed if share is not None]
    return control(
        OTHERS_STAY,
        1 - max(shares) if shares else None,
        1 - params.max_others_removed,
        "retained people whom the criteria on targets do not call removed: to them, this is the delta of another "
        "person, and has to fail",
        generator,
    )


def criterion(
    name: str, found: float | None, sense: Sense, threshold: float, meaning: str, generator: str | None = None
) -> Criterion:
    """A threshold; inconclusive when the figure was not found."""
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
    """False matches that are expected among retained photos, as far as there are people whom they can come from.

    Many photos of few people say what the two who happen to look most alike are like. As for recognisers, there is to
    be one pair of people that is taken for one person; with a share of a pair, so large a share of the needed matches
    counts at most.
    """
    rate = params.false_match_rate
    return min(photos * rate, params.min_impostors_per_error * false_pairs(people, rate))
