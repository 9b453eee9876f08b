"""`ireu export`: turn a delta into a drop-in encoder, checked in the served dtype before the output is replaced."""

from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ireu_cli.cases.events import cases_of
from ireu_cli.config import Resolved
from ireu_cli.exporting.gate.run import fill_gate
from ireu_cli.exporting.gate.wanted import is_gate_wanted, refuse_without_detectors
from ireu_cli.exporting.layouts import (
    copied_digests,
    layout_for,
    served_dtype,
)
from ireu_cli.exporting.network import check_whole, write_whole
from ireu_cli.exporting.opened import Original, open_original, refuse_own_place
from ireu_cli.exporting.served import at_hand, check_served
from ireu_cli.exporting.told import reached_by, record_in, sealed, write_told
from ireu_cli.exporting.transformer import (
    Aside,
    Prints,
    aside,
    edit_of,
    prints_of,
    refuse_changed,
    write_transformer,
)
from ireu_cli.manifest import Manifest
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import read_delta
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.verdict import Verdict, failed, find_verdict, refuse_failed


def run_export(
    resolved: Resolved,
    talk: Talk,
    delta_path: Path,
    out: Path,
    *,
    force: bool,
    report: Path | None = None,
    allow_failed: bool = False,
) -> StepResult:
    """Write the edited encoder as a folder that replaces the original.

    Args:
        resolved: flags, environment and file.
        talk: prints messages and progress.
        delta_path: the delta.
        out: the folder to write.
        force: overwrite an existing output.
        report: the report of the delta; None looks for it beside the delta.
        allow_failed: export even if the verification failed.

    Raises:
        FailedErasureError: the verification of the delta, or of what was written, failed.
        VanishedEditError: rounding to the served dtype loses the edit.
        IreuError: configuration, encoder, delta or output cannot be used.
    """
    session = open_session("export", resolved, talk, force=force, parent=delta_path, out=out)
    parent = check_parent(session, "unlearn")
    verdict = find_verdict(session, parent, delta_path.parent, report)
    refuse_failed(verdict, allowed=allow_failed)
    delta = read_delta(delta_path)
    original = open_original(session, at_hand=at_hand(session))
    if is_gate_wanted(session.config.export):
        refuse_without_detectors(original, parent, delta)
    check_whole(original, session.config.export)
    if original.source is not None:
        layout_for(session.config.export.format, original.source)
    refuse_own_place(session, original, out)
    draft = session.draft(original.encoder, extra=None if verdict is None else {"report": verdict.digest})
    with session.lock(out), aside() as beside:
        # Reading all weights takes as long as copying them.
        prints = None
        if original.source is not None:
            prints = beside.do(partial(prints_of, session, original.encoder, original.source))
        record = out / EXPORT_MANIFEST_NAME
        if prints is not None and record.exists():
            # Of what is there already nothing is noted for another encoder.
            prints.result()
        if (done := session.already_done(draft, record, out)) is not None:
            _remember(session, done)
            _say(session, verdict)
            return StepResult(out, done, reused=True)
        session.start(draft, out)
        stand = _Stand(parent, verdict, allow_failed)
        manifest = _write(session, draft, stand, original, prints, delta, out, beside)
        _remember(session, manifest)
        _say(session, verdict)
    return StepResult(out, manifest, reused=False)


@dataclass(frozen=True)
class _Stand:
    """The records behind an export: of its delta, and of the delta's verification if there is one."""

    parent: Manifest
    verdict: Verdict | None
    allow_failed: bool


def _remember(session: Session, manifest: Manifest) -> None:
    """Note in the run folder that an encoder is an edited one; without requests it is not. A gate is no encoder."""
    edited = manifest.metrics.get("edited_encoder")
    if edited is not None and edited != manifest.encoder.fingerprint:
        session.run.note_export(edited)


def _say(session: Session, verdict: Verdict | None) -> None:
    """The outcome of the last verification of the delta."""
    if verdict is not None:
        session.talk.note(f"verification of this delta: {verdict.words}")


def _write(
    session: Session,
    draft: Manifest,
    stand: _Stand,
    original: Original,
    prints: Prints | None,
    delta: WeightDelta,
    out: Path,
    beside: Aside,
) -> Manifest:
    parent, verdict = stand.parent, stand.verdict
    encoder, source = original.encoder, original.source
    dtype = "float32" if source is None else served_dtype(session.config.export.dtype, source)

    def fill(folder: Path) -> Manifest:
        if is_gate_wanted(session.config.export):
            return fill_gate(session, draft, parent, verdict, original, delta, folder)
        edit = None if source is None else edit_of(session, source, delta)
        # The digest of a copy takes longer than the copy.
        digests = None if edit is None else beside.do(partial(copied_digests, edit, folder))
        flushed: Future[None] | None = None
        if edit is None or prints is None:
            place, fingerprint = write_whole(session, original, delta, folder)
        else:
            place, fingerprint, flushed = write_transformer(session, parent, encoder, edit, prints, folder, beside)
        metrics = check_served(session, parent, encoder, place, source, delta, dtype)
        again = metrics["verified_again"]
        if again is not None and again["outcome"] == "fail" and not stand.allow_failed:
            raise failed(f"The encoder written in {dtype} failed when it was verified again. {again['reason']}")
        covered, reached = reached_by(session, encoder, delta)
        metrics |= reached | {"edited_encoder": fingerprint, "cases": list(cases_of(parent))}
        metrics["verification"] = None if verdict is None else verdict.recorded()
        metrics["record"] = record_in(session, parent, delta, encoder, verdict)
        write_told(session, original, covered, metrics, verdict, folder)
        known = {} if digests is None else digests.result()
        if flushed is not None:
            flushed.result()
        if source is not None:
            refuse_changed(source)
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        return sealed(session, folder, finished, known)

    # It is made to be served, often by another user.
    return session.put_folder(out, fill, shared=True)
