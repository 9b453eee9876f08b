"""Figures by group say something of groups, and never of one person."""

from collections.abc import Sequence

from ireu_cli.report import Figure

SMALLEST_GROUP = 3
"""People below whom a group has no figures, as it has no interval."""


def column_of(group: str) -> str:
    """The label that a group is a value of."""
    return group.partition(" = ")[0]


def shareable(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Leave out figures by a label of which a value is shared by fewer than `SMALLEST_GROUP` people.

    All values of the label go: from those of the others and of everybody, the one could be told.
    """
    small = {_key(f) for f in figures if f.group is not None and f.people < SMALLEST_GROUP}
    return tuple(f for f in figures if f.group is None or _key(f) not in small)


def _key(f: Figure) -> tuple[object, ...]:
    about = (f.name, f.role, f.state, f.measure, f.generator, f.edit, f.attack, f.false_match_rate)
    return (*about, column_of(f.group or ""))
