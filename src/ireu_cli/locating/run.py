"""`ireu locate`: make a mask from photos and an encoder."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.locating.by_method import decided_by, interchanged, located_by, studio_for, swaps_for
from ireu_cli.locating.mixed import say_mixed
from ireu_cli.manifest import Manifest
from ireu_cli.opening import StepResult, open_session
from ireu_cli.photos import load_cast
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import mask_bytes
from ireu_cli.store.manifests import manifest_path
from ireu_cli.values import Located


def run_locate(resolved: Resolved, talk: Talk, out: Path, *, force: bool) -> StepResult:
    """Find the identity-related features and write them as a mask.

    Raises:
        IreuError: configuration, photos, encoder or output cannot be used.
    """
    session = open_session("locate", resolved, talk, force=force, out=out)
    cast = load_cast(session)
    encoder = session.original()
    lens = Lens(session, encoder, photo_reader(session.config))
    plan, studio = swaps_for(session, lens, cast), studio_for(session, lens)
    draft = session.draft(
        encoder,
        targets=session.records(cast.targets.photos),
        retain=session.records(cast.used.photos),
        extra=decided_by(session, plan, studio),
    )
    with session.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.start(draft, out)
        mixed = say_mixed(session, lens, cast)
        located = located_by(session, lens, cast, plan, studio)
        if studio is not None and session.config.locate.interchange_pairs:
            located = interchanged(session, lens, cast, studio, located)
        manifest = _finish(session, draft, located, mixed, out)
    return StepResult(out, manifest, reused=False)


def _finish(session: Session, draft: Manifest, located: Located, mixed: list[int], out: Path) -> Manifest:
    metrics = {"features": len(located.mask.mask), "kept": located.mask.kept, "evidence": located.evidence}
    if mixed:
        metrics["mixed_targets"] = mixed
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    return session.put_file(out, mask_bytes(located.mask), finished)
