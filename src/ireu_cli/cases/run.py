"""`ireu cases`: verify a register, and say of every case where it stands and what is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ireu_cli.cases.standing import Standing, last_exports, standings
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import digest_of
from ireu_cli.store.register import Entry, Event, Key, Register, read_register
from ireu_cli.store.rundir import REGISTER, RunDir
from ireu_cli.values import Json

_SHOWN = 20


@dataclass(frozen=True)
class Cases:
    """What a register says, as plain values, and whether its chain holds."""

    told: dict[str, Json]
    is_whole: bool


def list_cases(register: Path | None, run_dir: Path, deleted: Sequence[str] = (), today: str | None = None) -> Cases:
    """Read a register.

    Args:
        register: the file; None: that of the run folder.
        run_dir: the run folder, whose key verifies seals; it need not exist.
        deleted: cases whose photos were deleted, which is noted first.
        today: the date, as YYYY-MM-DD; None: today's, in UTC.

    Raises:
        ArtifactError: the register cannot be read, or a named case is not in it.
    """
    path = register or run_dir / REGISTER
    if not path.is_file():
        raise ArtifactError(
            f"There is no register {path}", "Name one with --register, or the run folder with --run-dir"
        )
    key = _key_of(run_dir)
    if deleted:
        _note_deleted(path, key, deleted)
    read = read_register(path, key)
    exports = last_exports(read.entries)
    faults = list(read.faults[:_SHOWN])
    if rest := len(read.faults) - len(faults):
        faults.append(f"{rest} more")
    day = today or datetime.now(UTC).strftime("%Y-%m-%d")
    told = {
        "register": "whole" if not read.faults else "NOT WHOLE",
        "entries": len(read.entries),
        "faults": faults,
        "cases": {one.case: _told(one, exports, day) for one in standings(read.entries)},
    }
    return Cases(told, not read.faults)


def _key_of(run_dir: Path) -> Key | None:
    run = RunDir(run_dir)
    return Key(run.key_name, run.seal_entry) if run.is_made else None


def _note_deleted(path: Path, key: Key | None, cases: Sequence[str]) -> None:
    known = {one.case for one in standings(read_register(path).entries)}
    for case in cases:
        if case not in known:
            raise ArtifactError(f"The register has no case {case}", "Name one that `ireu cases` lists")
    for case in cases:
        # Nothing was written, so the case itself stands for it.
        Register(path, key).add(Event(what="deletion", cases=(case,), artifact=digest_of(["photos deleted", case])))


def _told(one: Standing, exports: dict[str, Entry], today: str) -> dict[str, Json]:
    last = next((exports[encoder] for encoder in reversed(one.encoders) if encoder in exports), None)
    return {
        "state": one.state,
        "since": one.withdrawn or one.asked,
        "request_date": one.request_date,
        "encoders": one.encoders,
        "verified": None if one.verified is None else f"{one.verified.outcome} ({one.verified.at})",
        "exported": None if one.exported is None else one.exported.at,
        "edited_encoder": None if one.exported is None else one.exported.edited,
        "photos_deleted": one.photos_deleted,
        "due": one.due(today, last),
    }
