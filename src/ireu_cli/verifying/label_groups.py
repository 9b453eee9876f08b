"""Figures by group describe groups and never a single person."""

from collections.abc import Sequence

from ireu_cli.report import Figure

SMALLEST_GROUP = 3
"""The fewest people for which a group has figures; smaller groups have no interval."""


def column_of(group: str) -> str:
    """The label of a group, which is one of its values."""
    return group.partition(" = ")[0]


def shareable(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Leave out the figures of a label if fewer than `SMALLEST_GROUP` people share one of its values.

    All values of the label are left out: otherwise the small group's figure follows from the others and the total.
    """
    small = {_key(f) for f in figures if f.group is not None and f.people < SMALLEST_GROUP}
    return tuple(f for f in figures if f.group is None or _key(f) not in small)


def _key(f: Figure) -> tuple[object, ...]:
    about = (f.name, f.role, f.state, f.measure, f.generator, f.edit, f.attack, f.false_match_rate)
    return (*about, column_of(f.group or ""))
