"""A figure against what was asked of it."""

from typing import Literal

from ireu_cli.report import Control, Criterion, Outcome

Sense = Literal["at most", "at least"]

OTHERS_STAY = "other_person_fails"
"""The control that a delta says nothing of the removal of people other than its targets."""


def control(name: str, found: float | None, needed: float, meaning: str, generator: str | None = None) -> Control:
    """A precondition, met when the figure was found and reaches what is needed."""
    met = found is not None and found >= needed
    return Control(name=name, generator=generator, met=met, found=found, needed=needed, meaning=meaning)


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
