"""`ireu locate`: make a mask from photos and an encoder."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ireu_cli.config import Resolved
from ireu_cli.drawing.studio import Studio, need_studio, open_studio
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.errors import PhotoError
from ireu_cli.locating.mixed import say_mixed
from ireu_cli.locating.saliency import locate_by_saliency
from ireu_cli.locating.scores import absolute_shifts, locate_by_swap, locate_by_variance, locate_control
from ireu_cli.locating.swaps import SwapPlan, plan_swaps
from ireu_cli.locating.through_generator import interchange_record, saliency_rows
from ireu_cli.manifest import Manifest
from ireu_cli.opening import StepResult, open_session
from ireu_cli.photos import Cast, load_cast
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import manifest_path, mask_bytes
from ireu_cli.support.runtime import generator
from ireu_cli.values import Json, Located


def run_locate(resolved: Resolved, talk: Talk, out: Path, *, force: bool) -> StepResult:
    """Find the identity-related features and write them as a mask.

    Raises:
        IreuError: configuration, photos, encoder or output cannot be used.
    """
    session = open_session("locate", resolved, talk, force=force, out=out)
    cast = load_cast(session)
    encoder = session.encoder()
    lens = Lens(session, encoder, photo_reader(session.config))
    plan, studio = _plan(session, lens, cast), _studio(session, encoder)
    draft = session.draft(
        encoder,
        targets=session.records(cast.targets.photos),
        retain=session.records(cast.used.photos),
        extra=_extra(session, plan, studio),
    )
    with session.run.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.run.start(draft, out)
        mixed = say_mixed(session, lens, cast)
        located = _located(session, lens, cast, plan, studio)
        if studio is not None and session.config.locate.interchange_pairs:
            located = _interchanged(session, lens, cast, studio, located)
        manifest = _finish(session, draft, located, mixed, out)
    return StepResult(out, manifest, reused=False)


def _plan(session: Session, lens: Lens, cast: Cast) -> SwapPlan | None:
    return plan_swaps(session, lens, cast.targets, cast.used) if session.config.locate.method == "swap" else None


def _studio(session: Session, encoder: ImageEncoder) -> Studio | None:
    """The generator, if the method or the evidence needs one and the encoder comes with one."""
    params = session.config.locate
    if params.method == "saliency":
        return need_studio(session, encoder)
    # If all features are interchanged, there is nothing to compare.
    return open_studio(session, encoder) if params.interchange_pairs and params.method != "all" else None


def _extra(session: Session, plan: SwapPlan | None, studio: Studio | None) -> Json:
    """What decides the result besides parameters, encoder and photos."""
    swaps = None if plan is None else [[session.run.keyed_digest(item.key) for item in row] for row in plan.items]
    return swaps if studio is None else {"swaps": swaps, "studio": studio.fingerprint}


def _interchanged(session: Session, lens: Lens, cast: Cast, studio: Studio, located: Located) -> Located:
    targets = lens.encode(cast.targets, "--targets", "target photos")
    record = interchange_record(session, lens, studio, located.mask, targets, cast.used)
    return Located(located.mask, {**located.evidence, "interchange": record})


def _located(session: Session, lens: Lens, cast: Cast, plan: SwapPlan | None, studio: Studio | None) -> Located:
    params = session.config.locate
    rng = generator(session.config.seed, "locate", params.method)
    targets = lens.encode(cast.targets, "--targets", "target photos")
    if plan is not None:
        usable = set(targets.flat)
        rows = [(photo, row) for photo, row in zip(plan.photos, plan.items, strict=True) if photo in usable]
        kept = SwapPlan(tuple(photo for photo, _ in rows), tuple(row for _, row in rows)).encode(lens)
        with session.timed("score"):
            return locate_by_swap(absolute_shifts(kept.pairs(lens)), params.top_fraction, rng)
    if params.method == "variance":
        used = lens.encode(cast.used, "--retain", "retained photos")
        if not used.labelled:
            raise PhotoError(
                "The variance method needs to know which photos show the same retained person",
                "Give --retain as DIR/<person>/*.jpg, or use --method swap",
            )

        def people() -> Iterator[Tensor]:
            for person in (*targets.photos, *used.photos):
                yield lens.features(person)

        with session.timed("score"):
            return locate_by_variance(people(), params.top_fraction, rng)
    if params.method == "saliency" and studio is not None:
        used = lens.encode(cast.used, "--retain", "retained photos")
        saliency = saliency_rows(session, lens, studio, targets.flat, used)
        return locate_by_saliency(saliency, params.top_fraction, rng)
    features = lens.features(targets.flat[:1]).shape[-1]
    return locate_control(features, params.top_fraction, params.method, rng)


def _finish(session: Session, draft: Manifest, located: Located, mixed: list[int], out: Path) -> Manifest:
    metrics = {"features": len(located.mask.mask), "kept": located.mask.kept, "evidence": located.evidence}
    if mixed:
        metrics["mixed_targets"] = mixed
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    return session.put_file(out, mask_bytes(located.mask), finished)
