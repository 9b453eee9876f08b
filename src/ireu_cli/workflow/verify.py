"""`ireu verify`: a delta to a report."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.faces.folder import People
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.models.clip import Encoder, with_delta
from ireu_cli.models.reach import reach_of
from ireu_cli.report import Report, Subject
from ireu_cli.report_page import page
from ireu_cli.steps.figures import DEFINITIONS, Evidence
from ireu_cli.steps.pictures import PICTURE_DEFINITIONS, GeneratorEvidence
from ireu_cli.steps.verify import Verified, unusable, verify
from ireu_cli.store.artifacts import (
    GRIDS,
    IMAGES,
    REPORT_MANIFEST_NAME,
    REPORT_NAME,
    read_delta,
    write_manifest,
)
from ireu_cli.store.files import read_bytes, write_bytes, write_folder
from ireu_cli.values import WeightDelta
from ireu_cli.workflow.album import make_grids, write_images
from ireu_cli.workflow.drawing import Drawn, Show, draw_all, open_show
from ireu_cli.workflow.evidence import gather, load_people
from ireu_cli.workflow.photos import photo_reader
from ireu_cli.workflow.session import Session, StepResult, Talk, check_parent, open_session

_ATTACKS = "Attacks that try to bring the person back."
_WITHOUT_PICTURES = (
    "Generated pictures: no generator was given, so nothing is said about what a generator draws.",
    "Recognisers: the features judged themselves; no independent face recogniser took part.",
    _ATTACKS,
)
_WITH_PICTURES = (
    "A second recogniser: one face recogniser judged the pictures, the one that comes with the encoder.",
    "Distances between sets of pictures (KID, FID): no features are at hand that they are commonly computed on.",
    _ATTACKS,
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
    show = open_show(session)
    reference = [person.model_dump(mode="json") for person in session.records(people[2].photos)]
    draft = session.draft(
        original,
        targets=session.records(people[0].photos),
        retain=session.records(people[1].photos),
        extra=reference if show is None else {"reference": reference, "show": show.fingerprint},
    )
    record = out / REPORT_MANIFEST_NAME
    with session.run.lock(out):
        if (done := session.already_done(draft, record, out)) is not None:
            return StepResult(out / REPORT_NAME, done, reused=True, report=read_report(out / REPORT_NAME))
        session.run.start(draft, out)
        reader = photo_reader(session.config)
        evidence = gather(session, parent, original, edited, people, reader)
        drawn, pictures = _pictures(session, show, parent, evidence, (original, edited), people[:2], reader)
        with session.timed("verify"):
            verified = verify(evidence, session.config.verify, session.config.seed, pictures)
        report = build_report(session, parent, delta, original, edited, verified, with_pictures=bool(pictures))
        manifest = _write(session, draft, report, drawn, out, reader)
    return StepResult(out / REPORT_NAME, manifest, reused=False, report=report)


def _pictures(
    session: Session,
    show: Show | None,
    parent: Manifest,
    evidence: Evidence,
    encoders: tuple[Encoder, Encoder],
    people: tuple[People, People],
    reader: PhotoReader,
) -> tuple[tuple[Drawn, ...], tuple[GeneratorEvidence, ...]]:
    """Draw, where there is a generator, and where features allow a verdict at all."""
    if show is None or unusable(evidence) is not None:
        return (), ()
    return draw_all(session, show, parent, encoders, people, reader)


def build_report(
    session: Session,
    parent: Manifest,
    delta: WeightDelta,
    original: Encoder,
    edited: Encoder,
    verified: Verified,
    *,
    with_pictures: bool,
) -> Report:
    """Put what was found together with what it was found on."""
    reach = reach_of(delta.tensors, original.blocks)
    reason = verified.reason
    if session.config.encoder.tap not in reach.taps:
        reason += f" The delta does not reach {session.config.encoder.tap}: {reach.sentence()}."
    return Report(
        outcome=verified.outcome,
        reason=reason,
        level="generator" if with_pictures else "encoder",
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
        definitions=DEFINITIONS | (PICTURE_DEFINITIONS if with_pictures else {}),
        not_measured=_WITH_PICTURES if with_pictures else _WITHOUT_PICTURES,
    )


def read_report(path: Path) -> Report:
    """Read a report whose manifest was checked."""
    return Report.model_validate_json(read_bytes(path, "The report", "Run `ireu verify` again with --force"))


def _write(
    session: Session, draft: Manifest, report: Report, drawn: tuple[Drawn, ...], out: Path, reader: PhotoReader
) -> Manifest:
    written: list[Manifest] = []
    params = session.config.verify
    grids = [grid for plan in drawn for grid in make_grids(plan, reader)] if params.pictures else []

    def fill(folder: Path) -> None:
        write_bytes(folder / REPORT_NAME, (report.model_dump_json(indent=2) + "\n").encode())
        write_bytes(folder / "report.html", page(report, [(g.generator, g.role, g.png) for g in grids]).encode())
        files = [folder / REPORT_NAME, folder / "report.html"]
        for grid in grids:
            files.append(folder / GRIDS / grid.name)
            write_bytes(files[-1], grid.png)
        if params.keep_images and drawn:
            files += write_images(folder / IMAGES, drawn)
        metrics = {"outcome": report.outcome, "reason": report.reason}
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        written.append(write_manifest(folder / REPORT_MANIFEST_NAME, finished, files))

    write_folder(out, fill)
    return session.close(written[0])
