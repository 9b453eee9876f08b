"""Labels that the user gives to people (`data.labels`), to split results by group.

The folder names that a CSV file holds stay inside `Labels`; what leaves it is keyed by the number of the person.
"""

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ireu_cli.errors import ConfigError
from ireu_cli.faces.folder import People

NOT_STATED = "not stated"
MOST_VALUES = 20
"""A column with more values tells people apart, not groups."""
LONGEST = 60
"""Characters of a column's name or of a value that a result shows."""
_MEGABYTES = 10
_REMEDY = "The file of data.labels starts with a header: a name for the column of people, then one for each label"


@dataclass(frozen=True)
class PeopleLabels:
    """Labels by column and number of the person, and what else was found, in words that name nobody."""

    values: dict[str, dict[int, str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """A CSV file of labels: its columns, and a row of values for each person's folder name."""

    columns: tuple[str, ...]
    _first: str = field(repr=False)
    _rows: dict[str, tuple[str, ...]] = field(repr=False)

    def of(self, people: People) -> PeopleLabels:
        """The label of everybody in a folder, `NOT_STATED` where the file has none.

        Args:
            people: everybody in the folder; whom the file names beyond them is counted in a note.

        Raises:
            ConfigError: the folder does not tell people apart, or the file begins with a person instead of a header.
        """
        names = {_normal(people.folders[person[0].person].name): person[0].person for person in people.photos}
        if not people.labelled:
            raise ConfigError(
                "data.labels names people by their folders, but the photos are not in folders",
                "Put the photos of each person into a folder, or leave data.labels out",
            )
        if self._first in names and self._first not in self._rows:
            raise ConfigError("The first row of data.labels is a person, not a header", _REMEDY)
        unknown = (NOT_STATED,) * len(self.columns)
        values = {
            column: {number: self._rows.get(name, unknown)[position] for name, number in names.items()}
            for position, column in enumerate(self.columns)
        }
        strangers, silent = len(self._rows.keys() - names.keys()), len(names.keys() - self._rows.keys())
        notes = [f"data.labels names {strangers} people who are not in the folder"] if strangers else []
        notes += [f"data.labels names {silent} of the {len(names)} people in the folder not"] if silent else []
        return PeopleLabels(values, tuple(notes))


def read_labels(path: Path) -> Labels:
    """Read a CSV file: a header, then a row for each person, whose folder name comes first.

    Spaces around cells do not count, nor does the way in which accents are encoded. Values are shown with control
    characters escaped.

    Raises:
        ConfigError: no such file, not UTF-8, too large, no header, rows of different length, a person twice, or a
            column that tells people apart instead of grouping them. Rows are named by their number only.
    """
    rows = _rows(path)
    if not rows or len(rows[0][1]) < 2:
        raise ConfigError("data.labels has no column of labels", f"{_REMEDY}, separated by commas")
    (_, header), *body = rows
    columns = tuple(_shown(name) for name in header[1:])
    if not all(header) or len(set(columns)) < len(columns):
        raise ConfigError("The header of data.labels has a column without a name, or two of one name", _REMEDY)
    for line, row in body:
        if len(row) != len(header):
            raise ConfigError(
                f"Row {line} of data.labels has {len(row)} cells, the header {len(header)}",
                "Give every row a cell for each column, and put cells that hold a comma into double quotes",
            )
        if not row[0]:
            raise ConfigError(f"Row {line} of data.labels names no person", "Begin the row with a folder's name")
    _refuse_twice(body)
    for position, column in enumerate(columns, 1):
        _refuse_identifier(column, [row[position] for _, row in body if row[position]])
    first = _normal(header[0])
    return Labels(columns, first, {_normal(row[0]): tuple(_shown(v) or NOT_STATED for v in row[1:]) for _, row in body})


def groups_of(
    people: Sequence[int], labels: Mapping[str, Mapping[int, str]]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Group people by each column: ("column = value", positions in `people`), columns in order, values sorted.

    Args:
        people: numbers of the people that a figure is taken over.
        labels: `PeopleLabels.values`; somebody who is missing there counts as `NOT_STATED`.
    """
    groups: list[tuple[str, tuple[int, ...]]] = []
    for column, values in labels.items():
        found: dict[str, list[int]] = {}
        for position, number in enumerate(people):
            found.setdefault(values.get(number, NOT_STATED), []).append(position)
        groups += [(f"{column} = {value}", tuple(found[value])) for value in sorted(found)]
    return tuple(groups)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number that a spreadsheet gives it."""
    remedy = "Name a CSV file in UTF-8 with data.labels, or leave it out"
    try:
        with path.open("rb") as file:
            data = file.read(_MEGABYTES * 2**20 + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"The file of data.labels, {path}, does not exist", remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
        raise ConfigError(f"The file of data.labels, {path}, {why}", remedy) from None
    if len(data) > _MEGABYTES * 2**20:
        raise ConfigError(f"The file of data.labels, {path}, is larger than {_MEGABYTES} MB", remedy)
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except csv.Error:
        raise ConfigError(f"The file of data.labels, {path}, is not CSV", "Close every double quote") from None
    return [(number, row) for number, row in enumerate(rows, 1) if any(row)]


def _refuse_twice(body: Sequence[tuple[int, list[str]]]) -> None:
    first: dict[str, int] = {}
    for line, row in body:
        if (earlier := first.setdefault(_normal(row[0]), line)) != line:
            raise ConfigError(f"Rows {earlier} and {line} of data.labels are of one person", "Keep one of them")


def _refuse_identifier(column: str, values: Sequence[str]) -> None:
    """A result must not show what belongs to one person: names, numbers, days of birth."""
    distinct = set(values)
    if len(distinct) > MOST_VALUES or len(distinct) == len(values) > 2:
        raise ConfigError(
            f"The column {column} of data.labels has {len(distinct)} different values for {len(values)} people: "
            "it tells people apart and does not group them",
            f"Remove the column, or give it at most {MOST_VALUES} values that several people share",
        )
    if len({_shown(value) for value in distinct}) < len(distinct):
        raise ConfigError(
            f"Values of the column {column} of data.labels are alike in their first {LONGEST} characters",
            "Give it shorter values",
        )


def _normal(name: str) -> str:
    """A folder's name, however its accents are encoded."""
    return unicodedata.normalize("NFC", name.strip())


def _shown(value: str) -> str:
    """What a result shows: printable, and of limited length."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in unicodedata.normalize("NFC", value))
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"
