"""`ireu unlearn`: turn a mask into a delta."""

from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.copies import keep_pictures
from ireu_cli.coverage import recorded, sentences
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.manifest import Manifest, Roster, photos_of
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.photos import Cast, load_cast
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import delta_bytes, read_mask
from ireu_cli.store.manifests import manifest_path
from ireu_cli.unlearning.method import Method, Work
from ireu_cli.unlearning.methods import method_of
from ireu_cli.unlearning.planned import plan_edit
from ireu_cli.unlearning.requests import Earlier, read_earlier, requests_with, union, with_shared
from ireu_cli.values import Json

_ALWAYS = frozenset({"unlearn.method", "unlearn.systems"})
"""Settings that every method reads."""


def run_unlearn(
    resolved: Resolved, talk: Talk, mask_path: Path, out: Path, *, force: bool, onto: Path | None = None
) -> StepResult:
    """Remove the targets from the encoder and write the change of its weights.

    Args:
        resolved: flags, environment and file.
        talk: prints messages and progress.
        mask_path: the mask.
        out: the delta to write.
        force: overwrite an existing output.
        onto: a delta of the method `gated`; its requests are kept beside the new one.

    Raises:
        IreuError: configuration, photos, encoder, mask or output cannot be used, or the run diverges.
        KeyboardInterrupt: stopped; the checkpoint is written first.
    """
    if onto is not None:
        resolved = with_shared(resolved, onto)
    session = open_session("unlearn", resolved, talk, force=force, parent=mask_path, out=out)
    parent = check_parent(session, "locate")
    mask = read_mask(mask_path)
    cast = load_cast(session)
    encoder = session.original(dtype="float32")
    earlier = None if onto is None else read_earlier(session, encoder, onto)
    method = method_of(session.config.unlearn.method)
    plan, reach, covered = plan_edit(session, encoder, method)
    for sentence in (reach.sentence(), *reach.parts(session.config.encoder.tap), *sentences(covered)):
        talk.note(sentence)
    if unused := _unused(resolved, method):
        talk.note(f"The method {method.name} ignores {', '.join(unused)}")
    lens = Lens(session, encoder, photo_reader(session.config))
    draft, theirs = _draft(session, encoder, method, cast, parent, earlier)
    with session.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.start(draft, out)
        keep_pictures(session, lens.reader, cast.targets.flat)
        case = session.config.record.case_id or draft.identity[:12]
        # Refuse a request that cannot be added before the work starts.
        requests = {"requests": requests_with(earlier, case, theirs)} if method.keeps_requests else {}
        onto_ledger = earlier.ledger if earlier else None
        delta, summary = method.run(Work(session, lens, cast, mask, plan, draft.identity, case, onto_ledger))
        metrics = {
            "reach": {"taps": reach.taps, "missed": reach.missed},
            "coverage": recorded(covered),
            "case": case,
            **summary,
            **requests,
        }
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        manifest = session.put_file(out, delta_bytes(delta), finished)
    return StepResult(out, manifest, reused=False)


def _draft(
    session: Session, encoder: ImageEncoder, method: Method, cast: Cast, mask: Manifest, earlier: Earlier | None
) -> tuple[Manifest, Roster]:
    """Start the manifest: everybody whom locating, this or earlier requests used, and the request's own people."""
    theirs = session.records(cast.targets.photos)
    targets, retain = union(theirs, mask.targets), union(session.records(cast.used.photos), mask.retain)
    case = session.config.record.case_id
    extra: Json = {"case": case, "onto": earlier and earlier.manifest.digest}
    if earlier is not None:
        _beside(session, earlier, retain)
        targets, retain = union(targets, earlier.manifest.targets), union(retain, earlier.manifest.retain)
    extra = extra if method.keeps_requests else None
    return session.draft(encoder, targets=targets, retain=retain, extra=extra), theirs


def _unused(resolved: Resolved, method: Method) -> list[str]:
    """Settings that flags set but the method does not read."""
    given = sorted(key for key, source in resolved.sources.items() if source == "flag" and key not in _ALWAYS)
    return [key for key in given if key.startswith(("unlearn.", "gated.")) and method.passes_over(key)]


def _beside(session: Session, earlier: Earlier, retain: Roster) -> None:
    """Warn about differences between a request and those that it is added to."""
    if retain != earlier.manifest.retain and photos_of(retain) != photos_of(earlier.manifest.retain):
        session.talk.note(
            "The retained photos differ from those of the earlier requests: each request keeps its rate on its own "
            "photos, and verify counts all of them as used"
        )
