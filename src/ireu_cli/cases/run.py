"""`ireu cases`: verify a register, and say of every case where it stands and what is due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ireu_cli.cases.known import Known, Standing, known_from
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import digest_of
from ireu_cli.store.register import Event, Key, Read, Register, read_register
from ireu_cli.store.rundir import KEY, REGISTER, RunDir
from ireu_cli.values import Json

Trust = Literal["whole", "chain whole, not every seal verified", "NOT WHOLE"]
_SHOWN = 20


@dataclass(frozen=True)
class Cases:
    """What a register says, as plain values, and how far it can be trusted."""

    trust: Trust
    told: dict[str, Json]


def list_cases(register: Path | None, run_dir: Path, deleted: Sequence[str] = (), today: str | None = None) -> Cases:
    """Read a register.

    Args:
        register: the file; None: that of the run folder, which the run folder's key has to seal entirely.
        run_dir: the run folder, whose key verifies seals; it need not exist, and nothing in it is made or changed.
        deleted: cases whose photos were deleted, which is noted first.
        today: the date, as YYYY-MM-DD; None: today's, in UTC.

    Raises:
        ArtifactError: the register cannot be read, or a named case is not in it.
    """
    path = register or run_dir / REGISTER
    if not path.exists():
        remedy = "Name one with --register, or the run folder with --run-dir"
        raise ArtifactError(f"There is no register {path}", remedy)
    key = _key_of(run_dir)
    if deleted:
        _note_deleted(path, key, deleted)
    read = read_register(path, key)
    faults = _faults(read, key, is_own=register is None)
    known, day = known_from(read.entries), today or datetime.now(UTC).strftime("%Y-%m-%d")
    trust = _trust(read, faults)
    told: dict[str, Json] = {
        "register": trust,
        "entries": len(read.entries),
        "sealed_with_this_key": read.sealed,
        "faults": [*faults[:_SHOWN], *([f"{len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else [])],
        "cases": {one.case: _told(known, one, day) for one in known.cases},
    }
    return Cases(trust, told)


def _trust(read: Read, faults: Sequence[str]) -> Trust:
    if faults:
        return "NOT WHOLE"
    return "whole" if read.sealed == len(read.entries) else "chain whole, not every seal verified"


def _faults(read: Read, key: Key | None, *, is_own: bool) -> list[str]:
    """In the register of a run folder every entry has to be its own: anybody can add one without a seal."""
    foreign = len(read.entries) - read.sealed
    if is_own and key is not None and foreign:
        return [*read.faults, f"{foreign} entries are not sealed with the key of this run folder"]
    return list(read.faults)


def _key_of(run_dir: Path) -> Key | None:
    return RunDir(run_dir).entry_key if (run_dir / KEY).is_file() else None


def _note_deleted(path: Path, key: Key | None, cases: Sequence[str]) -> None:
    known = {one.case for one in known_from(read_register(path).entries).cases}
    for case in cases:
        if case not in known:
            raise ArtifactError(f"The register has no case {case}", "Name one that `ireu cases` lists")
    for case in cases:
        # Nothing was written, so the case itself stands for it.
        Register(path, key).add(Event(what="deletion", cases=(case,), artifact=digest_of(["photos deleted", case])))


def _told(known: Known, one: Standing, today: str) -> dict[str, Json]:
    return {
        "request_date": one.request_date,
        "photos_deleted": one.photos_deleted,
        "due": known.due(one, today),
        "encoders": {encoder: _in_encoder(known, one, encoder) for encoder in one.encoders},
    }


def _in_encoder(known: Known, one: Standing, encoder: str) -> dict[str, Json]:
    place = one.encoders[encoder]
    exported = place.exported
    verified = None if exported is None else known.verifications.get(exported.parent or "")
    return {
        "state": place.state,
        "since": place.withdrawn or place.asked,
        "exported": None if exported is None else exported.at,
        "edited_encoder": None if exported is None else exported.edited,
        "verified": None if verified is None else f"{verified.outcome} ({verified.at})",
    }
