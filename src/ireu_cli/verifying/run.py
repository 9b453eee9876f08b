"""`ireu verify`: measure a delta and write a report."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.drawing.show import open_show
from ireu_cli.encodings.lens import photo_reader
from ireu_cli.faces.labels import groups_of, read_labels
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import REPORT_MANIFEST_NAME, REPORT_NAME, read_delta
from ireu_cli.store.files import file_sha256
from ireu_cli.values import Pair
from ireu_cli.verifying.criteria import Beside, verify
from ireu_cli.verifying.departures import departures_of, refuse_weaker
from ireu_cli.verifying.feature_evidence import Gathered, gather, load_people
from ireu_cli.verifying.label_groups import SMALLEST_GROUP, column_of
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
    with session.run.lock(out):
        if (done := session.already_done(draft, record, out)) is not None:
            return StepResult(out / REPORT_NAME, done, reused=True, report=read_report(out / REPORT_NAME))
        session.run.start(draft, out)
        reader = photo_reader(session.config)
        gathered = gather(session, parent, encoders, people, reader)
        labelled = _labelled(session, gathered)
        seen = look(session, show, parent, gathered, encoders, reader, delta.ledger)
        with session.timed("verify"):
            beside = Beside(seen.calibrations, seen.figures, seen.attacked, labelled)
            verified = verify(gathered.evidence, session.config.verify, session.config.seed, seen.evidence, beside)
        report = build_report(
            session, draft, delta, encoders, verified, gathered, show,
            calibrations=seen.calibrations, curves=seen.curves, kept=seen.kept, drawn=bool(seen.evidence),
            attacked=seen.attacked,
        )  # fmt: skip
        manifest = write_report(session, draft, report, seen.drawn, out, reader)
    return StepResult(out / REPORT_NAME, manifest, reused=False, report=report)


def _labelled(session: Session, gathered: Gathered) -> tuple[tuple[str, frozenset[int]], ...]:
    if session.config.data.labels is None:
        return ()
    labels = read_labels(session.config.data.labels).of(gathered.retained)
    for note in labels.notes:
        session.talk.note(note)
    numbers = [person[0].person for person in gathered.retained.photos]
    found = groups_of(numbers, labels.values)
    if small := sorted({column_of(name) for name, positions in found if len(positions) < SMALLEST_GROUP}):
        session.talk.note(
            f"results are not split by {', '.join(small)}, because fewer than {SMALLEST_GROUP} of the measured "
            "people share one of its values"
        )
    return tuple((name, frozenset(positions)) for name, positions in found)


def _file_digests(session: Session) -> list[str]:
    """Keyed digests of files that decide the result and are not photos."""
    config = session.config
    files = [path for path in (config.data.labels, config.judges.image_model) if path is not None and path.is_file()]
    return [session.run.keyed_digest(file_sha256(path)) for path in files]
