"""Figures by group describe groups and never a single person."""

from collections.abc import Sequence

from ireu_cli.faces.labels import groups_of, read_labels
from ireu_cli.report import Figure
from ireu_cli.session import Session
from ireu_cli.values import People

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


def labelled(session: Session, retained: People) -> tuple[tuple[str, frozenset[int]], ...]:
    """Groups of retained people by their labels, with the positions of those who are in them; small ones are told."""
    if session.config.data.labels is None:
        return ()
    labels = read_labels(session.config.data.labels).of(retained)
    for note in labels.notes:
        session.talk.note(note)
    numbers = [person[0].person for person in retained.photos]
    found = groups_of(numbers, labels.values)
    if small := sorted({column_of(name) for name, positions in found if len(positions) < SMALLEST_GROUP}):
        session.talk.note(
            f"results are not split by {', '.join(small)}, because fewer than {SMALLEST_GROUP} of the measured "
            "people share one of its values"
        )
    return tuple((name, frozenset(positions)) for name, positions in found)
