"""`ireu verify`: a delta to a report."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.manifest import Manifest
from ireu_cli.models.clip import Encoder, with_delta
from ireu_cli.models.reach import reach_of
from ireu_cli.report import Report, Subject
from ireu_cli.report_page import page
from ireu_cli.steps.figures import DEFINITIONS
from ireu_cli.steps.verify import Verified, verify
from ireu_cli.store.artifacts import REPORT_MANIFEST_NAME, REPORT_NAME, read_delta, write_manifest
from ireu_cli.store.files import read_bytes, write_bytes, write_folder
from ireu_cli.values import WeightDelta
from ireu_cli.workflow.evidence import gather, load_people
from ireu_cli.workflow.session import Session, StepResult, Talk, check_parent, open_session

_NOT_MEASURED = (
    "Generated pictures: no generator was given, so nothing is said about what a generator draws.",
    "Recognisers: the features judged themselves; no independent face recogniser took part.",
    "Attacks that try to bring the person back.",
)


def run_verify(resolved: Resolved, talk: Talk, delta_path: Path, out: Path, *, force: bool) -> StepResult:
    """Measure the edited encoder and write the report.

    Raises:
        IreuError: whatever is wrong with configuration, photos, encoder, delta or output.
    """
    session = open_session("verify", resolved, talk, force=force, parent=delta_path)
    parent = check_parent(session, "unlearn")
    delta = read_delta(delta_path)
    original = session.encoder(dtype="float32")
    edited = with_delta(original, delta, session.config.encoder.dtype)
    people = load_people(session, parent)
    draft = session.draft(
        original,
        targets=session.records(people[0].photos),
        retain=session.records(people[1].photos),
        extra=[person.model_dump(mode="json") for person in session.records(people[2].photos)],
    )
    record = out / REPORT_MANIFEST_NAME
    with session.run.lock(out):
        if (done := session.already_done(draft, record, out)) is not None:
            return StepResult(out / REPORT_NAME, done, reused=True, report=read_report(out / REPORT_NAME))
        session.run.start(draft, out)
        evidence = gather(session, parent, original, edited, people)
        with session.timed("verify"):
            verified = verify(evidence, session.config.verify, session.config.seed)
        report = build_report(session, parent, delta, original, edited, verified)
        manifest = _write(session, draft, report, out)
    return StepResult(out / REPORT_NAME, manifest, reused=False, report=report)


def build_report(
    session: Session, parent: Manifest, delta: WeightDelta, original: Encoder, edited: Encoder, verified: Verified
) -> Report:
    """Put what was found together with what it was found on."""
    reach = reach_of(delta.tensors, original.blocks)
    reason = verified.reason
    if session.config.encoder.tap not in reach.taps:
        reason += f" The delta does not reach {session.config.encoder.tap}: {reach.sentence()}."
    return Report(
        outcome=verified.outcome,
        reason=reason,
        level="encoder",
        subject=Subject(
            original_encoder=original.fingerprint,
            edited_encoder=edited.fingerprint,
            delta_manifest=parent.digest,
            tap=session.config.encoder.tap,
            served_dtype=session.config.encoder.dtype,
            taps_reached=reach.taps,
            taps_missed=reach.missed,
        ),
        controls=verified.controls,
        criteria=verified.criteria,
        figures=verified.figures,
        definitions=DEFINITIONS,
        not_measured=_NOT_MEASURED,
    )


def read_report(path: Path) -> Report:
    """Read a report whose manifest was checked."""
    return Report.model_validate_json(read_bytes(path, "The report", "Run `ireu verify` again with --force"))


def _write(session: Session, draft: Manifest, report: Report, out: Path) -> Manifest:
    written: list[Manifest] = []

    def fill(folder: Path) -> None:
        write_bytes(folder / REPORT_NAME, (report.model_dump_json(indent=2) + "\n").encode())
        write_bytes(folder / "report.html", page(report).encode())
        metrics = {"outcome": report.outcome, "reason": report.reason}
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        files = [folder / REPORT_NAME, folder / "report.html"]
        written.append(write_manifest(folder / REPORT_MANIFEST_NAME, finished, files))

    write_folder(out, fill)
    return session.close(written[0])
