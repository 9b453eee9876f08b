"""What a register says of each case: since when it is removed, from what, how it was verified, what is due."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ireu_cli.store.register import Entry

_PASSED, _INCONCLUSIVE = "passed", "inconclusive"
_PLACED = frozenset({"request", "withdrawal", "export"})
"""What says in which encoder a case is."""
SERVED, TAKEN_BACK = "served by", "taken back from"
"""How the outcome of a deployment begins."""
UNKNOWN = "before the register"
"""What stands in place of the time of a request that the register does not hold."""


@dataclass
class InEncoder:
    """One case in one encoder: when it was asked or withdrawn, and its last export.

    Times are UTC, as in the register.
    """

    asked: str
    withdrawn: str | None = None
    exported: Entry | None = None

    @property
    def state(self) -> str:
        """Removed, or withdrawn."""
        return "withdrawn" if self.withdrawn else "removed"


@dataclass
class Standing:
    """One case, in every encoder that it concerns, by the original's fingerprint (empty where none is known)."""

    case: str
    request_date: str | None = None
    photos_deleted_by: str | None = None
    photos_deleted: str | None = None
    encoders: dict[str, InEncoder] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What a register says: all cases, last exports by encoder, what is served by encoder and place, verifications."""

    cases: tuple[Standing, ...]
    exports: dict[str, Entry]
    served: dict[str, dict[str, Entry]]
    verifications: dict[str, Entry]

    def due(self, one: Standing, today: str) -> list[str]:
        """What is to be done for a case, in words; `today` is a date as YYYY-MM-DD."""
        found = []
        if one.photos_deleted_by and not one.photos_deleted and one.photos_deleted_by <= today:
            found.append(f"delete the photos (by {one.photos_deleted_by})")
        for encoder, place in one.encoders.items():
            words = self._due_in(one.case, encoder, place)
            where = f" (encoder {encoder[:12]})" if len(one.encoders) > 1 else ""
            found += [f"{word}{where}" for word in words]
        return found

    def _due_in(self, case: str, encoder: str, place: InEncoder) -> list[str]:
        last = self.exports.get(encoder)
        holds = last is not None and case in last.cases
        found = self._due_before(place, last, holds=holds)
        if found or last is None:
            return found
        # Only where something was ever deployed by ireu; others have their own ways.
        return next(([why] for one in self.served.get(encoder, {}).values() if (why := _stale(last, one))), [])

    def _due_before(self, place: InEncoder, last: Entry | None, *, holds: bool) -> list[str]:
        if place.withdrawn:
            return ["export again: the last export still honours it"] if holds else []
        if last is None or not holds:
            return ["export: no export honours it" if place.exported is None else "export: the last one lacks it"]
        verified = self.verifications.get(last.parent or "")
        if verified is None:
            return ["verify what was exported"]
        outcome = verified.outcome or ""
        if outcome.startswith(_PASSED):
            return [] if outcome == _PASSED else [f"verify in full: it {outcome}"]
        if outcome.startswith(_INCONCLUSIVE):
            return ["verify with more evidence: it was inconclusive"]
        return [f"make a better edit: it {outcome}"]


def _stale(exported: Entry, last: Entry) -> str | None:
    """What is wrong with what a service holds, by the last thing that was done or seen there; None if nothing is."""
    if last.what == "check":
        return None if last.outcome == "as recorded" else "deploy: a service was seen to hold something else"
    good = last.artifact == exported.artifact and (last.outcome or "").startswith(SERVED)
    return None if good else "deploy: what was deployed last is not the last export"


def _served(entries: Sequence[Entry]) -> dict[str, dict[str, Entry]]:
    """By encoder and place, the last deployment, or a later check; checks of what ireu never deployed do not count."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        places = found.setdefault(entry.encoder or "", {})
        place = entry.place or ""
        known = places.get(place)
        is_seen = entry.what == "check" and known is not None and known.artifact == entry.artifact
        if entry.what == "deployment" or is_seen:
            places[place] = entry
    return found


def known_from(entries: Sequence[Entry]) -> Known:
    """Read the entries in their order."""
    found: dict[str, Standing] = {}
    for entry in entries:
        for case in entry.cases:
            _note(found.setdefault(case, Standing(case)), entry)
    return Known(
        tuple(found.values()),
        {entry.encoder or "": entry for entry in _of(entries, "export")},
        _served(entries),
        {entry.parent: entry for entry in _of(entries, "verification") if entry.parent is not None},
    )


def _of(entries: Iterable[Entry], what: str) -> Iterable[Entry]:
    return (entry for entry in entries if entry.what == what)


def _note(one: Standing, entry: Entry) -> None:
    if entry.what == "deletion":
        one.photos_deleted = entry.at
        return
    if entry.what not in _PLACED:
        return
    # A case may have been asked for before there was a register.
    place = one.encoders.setdefault(entry.encoder or "", InEncoder(UNKNOWN))
    if entry.what == "request":
        if place.withdrawn or place.asked == UNKNOWN:
            place.asked, place.withdrawn = entry.at, None
        one.request_date = entry.request_date or one.request_date
        # New photos came with it.
        one.photos_deleted = None
        one.photos_deleted_by = entry.photos_deleted_by or one.photos_deleted_by
    elif entry.what == "withdrawal":
        place.withdrawn = entry.at
    elif entry.what == "export":
        place.exported = entry
