"""Labels that the user gives to people (`data.labels`), to split results by group.

The folder names in a CSV file stay inside `Labels`; everything that leaves it is keyed by the person's number.
"""

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ireu_cli.errors import ConfigError
from ireu_cli.values import People

NOT_STATED = "not stated"
MOST_VALUES = 20
"""The most values of a column; with more, it would identify people and not groups."""
LONGEST = 60
"""The most characters of a column's name or of a value in a result."""
_MEGABYTES = 10
_REMEDY = "Start the file of data.labels with a header: a name for the column of people, then a name for each label"


@dataclass(frozen=True)
class PeopleLabels:
    """Labels by column and number of the person, and notes without names."""

    values: dict[str, dict[int, str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """A CSV file of labels: its columns, and for each person's folder name a row of values."""

    columns: tuple[str, ...]
    _first: str = field(repr=False)
    _rows: dict[str, tuple[str, ...]] = field(repr=False)

    def of(self, people: People) -> PeopleLabels:
        """The label of everybody in a folder, `NOT_STATED` if the file has none.

        Args:
            people: everybody in the folder; a note counts other people in the file.

        Raises:
            ConfigError: the folder has no subfolders for people, or the file begins with a person instead of a header.
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
        notes += [f"data.labels does not name {silent} of the {len(names)} people in the folder"] if silent else []
        return PeopleLabels(values, tuple(notes))


def read_labels(path: Path) -> Labels:
    """Read a CSV file: a header, then a row for each person, whose folder name comes first.

    Spaces around cells do not count, and neither does the encoding of accents. Control characters in values are
    escaped.

    Raises:
        ConfigError: the file does not exist, is not UTF-8 or too large, has no header, rows of different length, a
            person twice, or a column that identifies people instead of grouping them. Messages name rows only by
            number.
    """
    rows = _rows(path)
    if not rows or len(rows[0][1]) < 2:
        raise ConfigError("data.labels has no column of labels", f"{_REMEDY}, separated by commas")
    (_, header), *body = rows
    columns = tuple(_shown(name) for name in header[1:])
    if not all(header) or len(set(columns)) < len(columns):
        raise ConfigError(
            "The header of data.labels has a column without a name, or two columns with the same name", _REMEDY
        )
    for line, row in body:
        if len(row) != len(header):
            raise ConfigError(
                f"Row {line} of data.labels has {len(row)} cells, and the header has {len(header)}",
                "Give every row a cell for each column, and put cells that hold a comma into double quotes",
            )
        if not row[0]:
            raise ConfigError(f"Row {line} of data.labels does not name a person", "Start the row with a folder's name")
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
        labels: `PeopleLabels.values`; people who are missing there count as `NOT_STATED`.
    """
    groups: list[tuple[str, tuple[int, ...]]] = []
    for column, values in labels.items():
        found: dict[str, list[int]] = {}
        for position, number in enumerate(people):
            found.setdefault(values.get(number, NOT_STATED), []).append(position)
        groups += [(f"{column} = {value}", tuple(found[value])) for value in sorted(found)]
    return tuple(groups)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with its number in a spreadsheet."""
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
            raise ConfigError(f"Rows {earlier} and {line} of data.labels are for the same person", "Keep one of them")


def _refuse_identifier(column: str, values: Sequence[str]) -> None:
    """Refuse columns about single persons, such as names, numbers or birthdays: a result must not show them."""
    distinct = set(values)
    if len(distinct) > MOST_VALUES or len(distinct) == len(values) > 2:
        raise ConfigError(
            f"The column {column} of data.labels has {len(distinct)} different values for {len(values)} people, so "
            "it identifies people instead of grouping them",
            f"Remove the column, or give it at most {MOST_VALUES} values that several people share",
        )
    if len({_shown(value) for value in distinct}) < len(distinct):
        raise ConfigError(
            f"Values of the column {column} of data.labels have the same first {LONGEST} characters",
            "Give it shorter values",
        )


def _normal(name: str) -> str:
    """A folder's name, with its accents in one encoding."""
    return unicodedata.normalize("NFC", name.strip())


def _shown(value: str) -> str:
    """The text for a result: printable, and of limited length."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in unicodedata.normalize("NFC", value))
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"
