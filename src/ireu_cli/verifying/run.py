"""`ireu verify`: measure a delta and write a report."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.drawing.show import open_show
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import read_delta
from ireu_cli.store.files import file_sha256
from ireu_cli.store.manifests import REPORT_MANIFEST_NAME, REPORT_NAME
from ireu_cli.values import Pair
from ireu_cli.verifying.criteria import Beside, verify
from ireu_cli.verifying.departures import departures_of, refuse_weaker
from ireu_cli.verifying.feature_evidence import gather, load_people
from ireu_cli.verifying.label_groups import labelled
from ireu_cli.verifying.looked import look
from ireu_cli.verifying.reporting.build_report import build_report
from ireu_cli.verifying.reporting.write_report import write_report
from ireu_cli.verifying.verdict import read_report


def run_verify(
    resolved: Resolved, talk: Talk, delta_path: Path, out: Path, *, force: bool, strict: bool = False
) -> StepResult:
    """Measure the edited encoder and write the report; with `strict`, no setting may be weaker than the default.

    Raises:
        IreuError: configuration, photos, encoder, delta or output cannot be used.
    """
    session = open_session("verify", resolved, talk, force=force, parent=delta_path, out=out)
    parent = check_parent(session, "unlearn")
    if strict:
        refuse_weaker(departures_of(session))
    delta = read_delta(delta_path)
    original = session.encoder(dtype="float32")
    encoders = Pair(original, original.edited(delta, session.config.encoder.dtype))
    people = load_people(session, parent)
    show = open_show(session, parent)
    draft = session.draft(
        original,
        targets=session.records(people.targets.photos),
        retain=session.records(people.held.photos),
        extra={
            "reference": [person.plain() for person in session.records(people.used.photos)],
            "show": None if show is None else show.fingerprint,
            "files": _file_digests(session),
        },
    )
    record = out / REPORT_MANIFEST_NAME
    with session.lock(out):
        if (done := session.already_done(draft, record, out)) is not None:
            return StepResult(out / REPORT_NAME, done, reused=True, report=read_report(out / REPORT_NAME))
        session.start(draft, out)
        gathered = gather(session, parent, encoders, people)
        groups = labelled(session, gathered.retained)
        seen = look(session, show, parent, gathered, delta.ledger)
        session.executor.leave()
        with session.timed("verify"):
            beside = Beside(seen.calibrations, seen.figures, seen.attacked, groups)
            verified = verify(gathered.evidence, session.config.verify, session.config.seed, seen.evidence, beside)
        report = build_report(session, draft, delta, verified, gathered, show, seen)
        manifest = write_report(session, draft, report, seen.drawn, out, gathered.encodings.reader)
    return StepResult(out / REPORT_NAME, manifest, reused=False, report=report)


def _file_digests(session: Session) -> list[str]:
    """Keyed digests of files that decide the result and are not photos."""
    config = session.config
    files = [path for path in (config.data.labels, config.judges.image_model) if path is not None and path.is_file()]
    return [session.run.keyed_digest(file_sha256(path)) for path in files]
