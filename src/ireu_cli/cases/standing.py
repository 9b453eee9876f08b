"""What a register says of each case: since when it is removed, from what, how it was verified, what is due."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ireu_cli.store.register import Entry

_PASSED = "passed"


@dataclass
class Standing:
    """One case: when it was asked and withdrawn, its last verification and export, and dates that the operator stated.

    Times are UTC, as in the register. `encoders` are fingerprints of the originals.
    """

    case: str
    asked: str
    request_date: str | None = None
    withdrawn: str | None = None
    verified: Entry | None = None
    exported: Entry | None = None
    photos_deleted_by: str | None = None
    photos_deleted: str | None = None
    encoders: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Removed, or withdrawn."""
        return "withdrawn" if self.withdrawn else "removed"

    def due(self, today: str, last_export: Entry | None) -> list[str]:
        """What is to be done, in words.

        Args:
            today: the date, as YYYY-MM-DD.
            last_export: the last export from the same encoder, whichever cases it honours.
        """
        found = []
        if self.photos_deleted_by and not self.photos_deleted and self.photos_deleted_by <= today:
            found.append(f"delete the photos (by {self.photos_deleted_by})")
        holds = last_export is not None and self.case in last_export.cases
        if self.withdrawn:
            return [*found, "export again: the last export still honours it"] if holds else found
        if not holds:
            found.append("export: no export honours it" if self.exported is None else "export: the last one lacks it")
        elif self.verified is None:
            found.append("verify")
        elif not (self.verified.outcome or "").startswith(_PASSED):
            found.append(f"make a better edit: it {self.verified.outcome}")
        return found


def standings(entries: Sequence[Entry]) -> list[Standing]:
    """Every case, in the order of its first request."""
    found: dict[str, Standing] = {}
    for entry in entries:
        for case in entry.cases:
            if entry.what == "request":
                _ask(found, case, entry)
            elif case in found:
                _note(found[case], entry)
    return list(found.values())


def last_exports(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The last export from each original encoder, by the original's fingerprint."""
    return {entry.encoder: entry for entry in entries if entry.what == "export" and entry.encoder is not None}


def _ask(found: dict[str, Standing], case: str, entry: Entry) -> None:
    one = found.setdefault(case, Standing(case, entry.at))
    if one.withdrawn:
        one.asked, one.withdrawn = entry.at, None
    one.request_date = entry.request_date or one.request_date
    one.photos_deleted_by = entry.photos_deleted_by or one.photos_deleted_by
    if entry.encoder is not None and entry.encoder not in one.encoders:
        one.encoders.append(entry.encoder)


def _note(one: Standing, entry: Entry) -> None:
    match entry.what:
        case "withdrawal":
            one.withdrawn = entry.at
        case "verification":
            one.verified = entry
        case "export":
            one.exported = entry
        case "deletion":
            one.photos_deleted = entry.at
