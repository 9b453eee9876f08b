"""`ireu verify`: a delta to a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.attacks.on_features import besiege_features
from ireu_cli.attacks.on_pictures import besiege_pictures
from ireu_cli.attacks.plan import plan_siege
from ireu_cli.attacks.siege import Siege
from ireu_cli.attacks.success import feature_matcher
from ireu_cli.attacks.suite import attacks_of
from ireu_cli.config import Resolved
from ireu_cli.drawing.before_and_after import Drawn, Photos, Show, draw_all, look_at_photos, open_show
from ireu_cli.drawing.panel import Panel
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.kinds import with_delta
from ireu_cli.faces.labels import groups_of, read_labels
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.photos import among, photo_reader
from ireu_cli.report import Calibration, Curve, Figure, Kept, Report
from ireu_cli.report_page import page
from ireu_cli.session import Session, StepResult, Talk, check_parent, open_session
from ireu_cli.store.artifacts import GRIDS, IMAGES, REPORT_MANIFEST_NAME, REPORT_NAME, read_delta
from ireu_cli.store.files import file_sha256, write_bytes
from ireu_cli.values import GateLedger, Ledger
from ireu_cli.verifying.build_report import build_report
from ireu_cli.verifying.criteria import Beside, unusable, verify
from ireu_cli.verifying.departures import departures_of, refuse_weaker
from ireu_cli.verifying.feature_evidence import Gathered, gather, load_people
from ireu_cli.verifying.label_groups import SMALLEST_GROUP, column_of
from ireu_cli.verifying.operating_points import calibrated
from ireu_cli.verifying.pictures.curves import drawn_curves, kept_plot
from ireu_cli.verifying.pictures.grids import make_grids, write_images
from ireu_cli.verifying.pictures.picture_distances import measure_quality
from ireu_cli.verifying.rival.rival_gate import evade_gate, measure_gate
from ireu_cli.verifying.verdict import read_report


@dataclass(frozen=True)
class _Seen:
    """What recognisers contribute: pictures before and after, calibrations, charts, and figures beside them."""

    drawn: tuple[Drawn, ...] = ()
    evidence: tuple[GeneratorEvidence, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    curves: tuple[Curve, ...] = ()
    kept: tuple[Kept, ...] = ()
    figures: tuple[Figure, ...] = ()
    attacked: tuple[str | None, ...] = ()


def run_verify(
    resolved: Resolved, talk: Talk, delta_path: Path, out: Path, *, force: bool, strict: bool = False
) -> StepResult:
    """Measure the edited encoder and write the report; with `strict`, no setting may be weaker than the default.

    Raises:
        IreuError: whatever is wrong with configuration, photos, encoder, delta or output.
    """
    session = open_session("verify", resolved, talk, force=force, parent=delta_path, out=out)
    parent = check_parent(session, "unlearn")
    if strict:
        refuse_weaker(departures_of(session))
    delta = read_delta(delta_path)
    original = session.encoder(dtype="float32")
    edited = with_delta(original, delta, session.config.encoder.dtype)
    people = load_people(session, parent)
    show = open_show(session, parent)
    draft = session.draft(
        original,
        targets=session.records(people[0].photos),
        retain=session.records(people[1].photos),
        extra={
            "reference": [person.plain() for person in session.records(people[2].photos)],
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
        gathered = gather(session, parent, original, edited, people, reader)
        labelled = _labelled(session, gathered)
        seen = _look(session, show, parent, gathered, (original, edited), reader, delta.ledger)
        with session.timed("verify"):
            beside = Beside(seen.calibrations, seen.figures, seen.attacked, labelled)
            verified = verify(gathered.evidence, session.config.verify, session.config.seed, seen.evidence, beside)
        report = build_report(
            session, draft, delta, (original, edited), verified, gathered, show,
            calibrations=seen.calibrations, curves=seen.curves, kept=seen.kept, drawn=bool(seen.evidence),
            attacked=seen.attacked,
        )  # fmt: skip
        manifest = _write(session, draft, report, seen.drawn, out, reader)
    return StepResult(out / REPORT_NAME, manifest, reused=False, report=report)


def _look(
    session: Session,
    show: Show | None,
    parent: Manifest,
    gathered: Gathered,
    encoders: tuple[ImageEncoder, ImageEncoder],
    reader: PhotoReader,
    ledger: Ledger | GateLedger | None,
) -> _Seen:
    """Draw, judge and attack, where there is a generator, and where features allow a verdict at all."""
    if unusable(gathered.evidence) is not None:
        return _Seen()
    siege = plan_siege(session, parent, encoders, gathered.targets.photos, gathered.retained.flat, reader, ledger)
    matcher = feature_matcher(gathered.evidence, session.config.verify.false_match_rate)
    attacks = () if siege is None else besiege_features(siege, matcher)
    attacked = _attacked(siege, show)
    if show is None:
        return _Seen(figures=attacks, attacked=attacked)
    photos = look_at_photos(session, show.panel, reader, (gathered.targets, gathered.retained))
    calibrations, charts = _calibrate(session, show.panel, photos)
    drawn, evidence = draw_all(session, show, parent, encoders, photos, reader)
    figures = (*measure_quality(session, encoders[0], drawn, gathered.retained, reader), *attacks)
    figures += _attack_pictures(session, show, parent, siege, photos)
    lines = (*charts, *drawn_curves(evidence))
    return _Seen(drawn, evidence, calibrations, lines, kept_plot(evidence), figures, attacked)


def _attacked(siege: Siege | None, show: Show | None) -> tuple[str | None, ...]:
    """Where attacks that are judged were asked for: None for features, then generators."""
    if siege is None:
        return ()
    judged = [attack for attack in attacks_of(siege) if not attack.white_box]
    features = any(attack.photo is not None or attack.features is not None for attack in judged)
    drawn = any(attack.photo is not None or attack.pictures is not None for attack in judged)
    generators = () if show is None or not siege.drawn or not drawn else tuple(one.name for one in show.generators)
    return (*((None,) if features else ()), *generators)


def _attack_pictures(
    session: Session, show: Show, parent: Manifest, siege: Siege | None, photos: Photos
) -> tuple[Figure, ...]:
    figures, gates = measure_gate(session, show.panel, photos, among(session, parent.targets))
    if siege is None:
        return figures
    evaded, passed = evade_gate(siege, show.panel, gates)
    drawn = besiege_pictures(siege, show, photos, passed) if siege.drawn else ()
    return (*figures, *evaded, *drawn)


def _calibrate(session: Session, panel: Panel, photos: Photos) -> tuple[tuple[Calibration, ...], tuple[Curve, ...]]:
    """Every recogniser on the run's own retained photos, before it says anything of targets."""
    found: list[Calibration] = []
    charts: list[Curve] = []
    for number, net in enumerate(panel.recognisers):
        retained = [rows for rows in photos.vectors[number][1] if len(rows)]
        config = session.config
        one, lines = calibrated(net.name, net.fingerprint, retained, config.judges, config.verify, config.seed)
        found.append(one)
        charts += lines
    return tuple(found), tuple(charts)


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
            f"results are not split by {', '.join(small)}: fewer than {SMALLEST_GROUP} of the people who are measured "
            "share a value of it"
        )
    return tuple((name, frozenset(positions)) for name, positions in found)


def _file_digests(session: Session) -> list[str]:
    """Keyed digests of files that decide the result and are no photos."""
    config = session.config
    files = [path for path in (config.data.labels, config.judges.image_model) if path is not None and path.is_file()]
    return [session.run.keyed_digest(file_sha256(path)) for path in files]


def _write(
    session: Session, draft: Manifest, report: Report, drawn: Sequence[Drawn], out: Path, reader: PhotoReader
) -> Manifest:
    params = session.config.verify
    grids = [grid for plan in drawn for grid in make_grids(plan, reader)] if params.pictures else []

    def fill(folder: Path) -> Manifest:
        write_bytes(folder / REPORT_NAME, (report.model_dump_json(indent=2) + "\n").encode())
        write_bytes(folder / "report.html", page(report, [(g.generator, g.role, g.png) for g in grids]).encode())
        files = [folder / REPORT_NAME, folder / "report.html"]
        for grid in grids:
            files.append(folder / GRIDS / grid.name)
            write_bytes(files[-1], grid.png)
        if params.keep_images and drawn:
            files += write_images(folder / IMAGES, drawn)
        metrics = {"outcome": report.outcome, "standing": report.standing, "reason": report.reason}
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        return session.seal(folder / REPORT_MANIFEST_NAME, finished, files)

    return session.put_folder(out, fill, shared=False)
