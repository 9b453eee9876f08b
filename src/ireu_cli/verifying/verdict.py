"""The report of a delta, as `export` finds it; an export repeats what the report says."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ireu_cli.errors import ArtifactError, FailedErasureError
from ireu_cli.manifest import MOST_BYTES, Manifest
from ireu_cli.report import ErasureRecord, Report
from ireu_cli.session import Session
from ireu_cli.store.files import read_bytes
from ireu_cli.store.manifests import REPORT_MANIFEST_NAME, REPORT_NAME, read_manifest
from ireu_cli.support.bounded import ContentError, read_json
from ireu_cli.values import Json

REPORT_FOLDER = "report"
"""The folder that `verify` writes by default."""
_FOUND = ("photos_supplied", "attacks_tried")
"""The fields of the record that only `verify` can fill."""


@dataclass(frozen=True)
class Verdict:
    """A report of this delta, and the digest of its manifest.

    `vouched`: whether this run folder sealed it. From a report of another run folder, only a failure counts.
    """

    report: Report
    digest: str
    vouched: bool

    @property
    def words(self) -> str:
        """The words for the outcome, with what it does not rest on."""
        if not self.vouched:
            return f"{self.report.outcome}, by a report that another run folder made"
        return self.report.standing or self.report.outcome

    def recorded(self) -> Json:
        """The entry for the manifest of an export."""
        if not self.vouched:
            return {"outcome": self.report.outcome, "standing": self.words, "report": self.digest}
        weaker = [one.key for one in self.report.departures or () if one.effect == "weaker"]
        return {
            "outcome": self.report.outcome,
            "standing": self.words,
            "gaps": self.report.gaps,
            "weaker_settings": weaker,
            "report": self.digest,
        }


def find_verdict(session: Session, delta: Manifest, folder: Path, named: Path | None) -> Verdict | None:
    """Find the report of a delta.

    Args:
        session: the run.
        delta: the delta's manifest.
        folder: the folder of the delta; the report is looked for in its `report/`.
        named: the report, or its folder, that you name instead.

    Returns:
        None if there is no report, or only one that this run folder did not make; a note says so.

    Raises:
        ArtifactError: the named report is missing, damaged, of another delta, or not this run folder's.
    """
    place = folder / REPORT_FOLDER if named is None else named.parent if named.name == REPORT_NAME else named
    if named is None and not (place / REPORT_MANIFEST_NAME).is_file():
        session.talk.note(f"not verified: {place} has no report of this delta; `ireu verify` makes one")
        return None
    try:
        return _read(session, delta, place)
    except ArtifactError as error:
        if named is not None:
            raise
        session.talk.note(f"not verified, as far as ireu can tell: {error.fact}")
        return None


def refuse_failed(verdict: Verdict | None, *, allowed: bool) -> None:
    """Refuse to serve an edit whose verification failed, unless that is allowed.

    Raises:
        FailedErasureError: it failed.
    """
    if verdict is not None and verdict.report.outcome == "fail" and not allowed:
        raise failed(f"The verification of this delta failed. {verdict.report.reason}")


def failed(fact: str) -> FailedErasureError:
    """The error that replaces an export."""
    return FailedErasureError(fact.rstrip("."), "Make another edit, or export this one anyway with --allow-failed")


def with_findings(record: ErasureRecord, verdict: Verdict | None) -> ErasureRecord:
    """The record of an export, completed with the results of its verification and with statements made only there."""
    if verdict is None or not verdict.vouched:
        return record
    theirs = verdict.report.record
    found = {name: getattr(theirs, name) for name in _FOUND}
    stated = {name: getattr(theirs, name) for name in ErasureRecord.model_fields if getattr(record, name) in {None, ()}}
    return record.model_copy(update=stated | found)


def read_report(path: Path, remedy: str = "Run `ireu verify` again with --force") -> Report:
    """Read a report whose manifest was checked.

    Raises:
        ArtifactError: it is no report of this version; `remedy` is the error's remedy.
    """
    data = read_bytes(path, "The report", remedy, MOST_BYTES)
    try:
        read_json(data, MOST_BYTES)
        return Report.model_validate_json(data)
    except ContentError as error:
        raise ArtifactError(f"The report {path} {error.why}", remedy) from None
    except ValidationError as error:
        raise ArtifactError(
            f"The report {path} is not one that this version of ireu reads ({error.error_count()} wrong fields)", remedy
        ) from None


def _read(session: Session, delta: Manifest, place: Path) -> Verdict:
    manifest = read_manifest(place / REPORT_MANIFEST_NAME)
    remedy = "Name the report of this delta with --report, or make one with `ireu verify`"
    if manifest.step != "verify" or manifest.parent != delta.digest:
        raise ArtifactError(f"The report in {place} is about another delta", remedy)
    report = read_report(place / REPORT_NAME, remedy)
    vouched = session.run.vouches(manifest)
    if not vouched and report.outcome != "fail":
        raise ArtifactError(
            f"The report in {place} is not sealed with the key of the run folder {session.run.path}", remedy
        )
    return Verdict(report, manifest.digest, vouched)
