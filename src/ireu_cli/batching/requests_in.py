"""The requests of a batch: a table `cases.csv`, or one folder of photos for each case."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ireu_cli.errors import ConfigError, UserError
from ireu_cli.faces.listing import SYSTEM
from ireu_cli.support.bounded import ContentError, inside, printable, read_bounded

TABLE = "cases.csv"
"""What a table in a folder of requests is called."""
REMOVE, WITHDRAW = "remove", "withdraw"
_MOST = 1 << 26
"""The most bytes of a table."""
_STATED = ("request_date", "photos_deleted_by")
"""Columns that go into the register."""
_COLUMNS = ("case_id", "photos", "action", *_STATED)


@dataclass(frozen=True)
class Request:
    """What somebody asks for: a case, what to do, the person's photos, and dates for the register.

    `why` says why it cannot be done at all.
    """

    case: str
    action: str = REMOVE
    photos: Path | None = None
    record: Mapping[str, str] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Requests:
    """The requests of a batch, whether a table names them, and how many entries of the folder are none."""

    requests: list[Request]
    in_table: bool
    passed_over: int = 0


def read_batch(place: Path) -> Requests:
    """Read the requests in a folder or in a table, in the order of their names or lines.

    Args:
        place: a folder with `cases.csv` or with one folder for each case, or a table of any name. In a table, `photos`
            is a path from the table's folder.

    Raises:
        UserError: nothing is there, or it cannot be opened.
        ConfigError: the table has mistakes; all are named.
    """
    try:
        table = place / TABLE if (place / TABLE).is_file() else place
        if table.is_file():
            found = _in_table(table)
            return Requests(found, True, _unlisted(place, found) if place.is_dir() else 0)
        if place.is_dir():
            return _in_folders(place)
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror})", "Correct its permissions") from None
    raise UserError(f"{place} does not exist", f"Name a folder of requests, or a table such as {TABLE}")


def _in_folders(place: Path) -> Requests:
    found, passed_over = [], 0
    for entry in sorted(os.scandir(place), key=lambda entry: os.fsencode(entry.name)):
        if entry.name.startswith(".") or entry.name.casefold() in SYSTEM:
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        if not is_folder:
            passed_over += 1
            continue
        try:
            found.append(Request(_named(entry.name), photos=place / entry.name))
        except ContentError as error:
            found.append(Request(printable(entry.name, 300), photos=place / entry.name, why=f"The case {error.why}"))
    return Requests(found, False, passed_over)


def _unlisted(place: Path, found: list[Request]) -> int:
    """How many folders beside a table are not in it."""
    named = {request.photos.relative_to(place).parts[0] for request in found if request.photos is not None}
    entries = [entry for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith(".")]
    return sum(entry.name not in named and entry.name.casefold() not in SYSTEM for entry in entries)


def _in_table(table: Path) -> list[Request]:
    try:
        text = read_bounded(table, _MOST).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{table} cannot be read as a table ({printable(error, 200)})", "Write CSV in UTF-8"
        ) from None
    head = [name.strip() for name in lines[0]] if lines else []
    if "case_id" not in head or (unknown := sorted(set(head) - set(_COLUMNS))) or len(set(head)) < len(head):
        what = f"the unknown column {printable(unknown[0])}" if "case_id" in head and unknown else "no good head line"
        raise ConfigError(f"{table} has {what}", f"Use the columns {', '.join(_COLUMNS)}; case_id is needed")
    found, mistakes = [], []
    for number, line in enumerate(lines[1:], 2):
        if any(cell.strip() for cell in line):
            try:
                found.append(_request(dict(zip(head, line, strict=True)), table.parent))
            except (ValueError, UserError) as error:
                why = error.fact if isinstance(error, UserError) else "it has another number of cells than the head"
                mistakes.append(f"line {number}: {why}")
    mistakes += [f"{case} is there twice" for case in _twice(found)]
    if mistakes:
        shown = "; ".join(mistakes[:10]) + (f"; and {len(mistakes) - 10} more" if len(mistakes) > 10 else "")
        raise ConfigError(f"{table}: {shown}", "Correct these lines")
    return found


def _request(cells: Mapping[str, str], folder: Path) -> Request:
    given = {name: text.strip() for name, text in cells.items() if text.strip()}
    case, action = _named(given.get("case_id", "")), given.get("action", REMOVE)
    if action not in {REMOVE, WITHDRAW}:
        raise UserError(f"the action {printable(action)} is unknown", f"Use {REMOVE} or {WITHDRAW}")
    if action == REMOVE and "photos" not in given:
        raise UserError("it names no photos", "Name their folder")
    photos = inside(folder, given["photos"], "the path of the photos") if "photos" in given else None
    return Request(case, action, photos, {name: given[name] for name in _STATED if name in given})


def _named(case: str) -> str:
    if not case or len(case) > 300 or not case.isprintable() or case != case.strip():
        why = "has a name that is empty, too long, does not print, or begins or ends with a space"
        raise ContentError(f"the case {printable(case)!r}", why)
    return case


def _twice(found: list[Request]) -> Iterator[str]:
    seen: set[str] = set()
    for request in found:
        if request.case in seen:
            yield f"the case {printable(request.case)}"
        seen.add(request.case)
