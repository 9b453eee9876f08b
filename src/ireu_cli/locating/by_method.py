"""The features that a method finds, and how they compare with random ones."""

from collections.abc import Iterator

from torch import Tensor

from ireu_cli.drawing.studio import Studio, open_studio
from ireu_cli.encodings.lens import Lens
from ireu_cli.errors import PhotoError
from ireu_cli.locating.saliency import locate_by_saliency, need_studio
from ireu_cli.locating.scores import absolute_shifts, locate_by_swap, locate_by_variance, locate_control
from ireu_cli.locating.swaps import SwapPlan, plan_swaps
from ireu_cli.locating.through_generator import interchange_record, saliency_rows
from ireu_cli.photos import Cast
from ireu_cli.session import Session
from ireu_cli.values import Json, Located


def swaps_for(session: Session, lens: Lens, cast: Cast) -> SwapPlan | None:
    """The swapped faces that the method needs."""
    return plan_swaps(session, lens, cast.targets, cast.used) if session.config.locate.method == "swap" else None


def studio_for(session: Session, lens: Lens) -> Studio | None:
    """The generator, if the method or the evidence needs one and the encoder comes with one."""
    params = session.config.locate
    if params.method == "saliency":
        return need_studio(session, lens.encoder)
    # If all features are interchanged, there is nothing to compare.
    return open_studio(session, lens.encoder) if params.interchange_pairs and params.method != "all" else None


def decided_by(session: Session, plan: SwapPlan | None, studio: Studio | None) -> Json:
    """What decides the result besides parameters, encoder and photos."""
    swaps = None if plan is None else [[session.run.keyed_digest(item.key) for item in row] for row in plan.items]
    return swaps if studio is None else {"swaps": swaps, "studio": studio.fingerprint}


def interchanged(session: Session, lens: Lens, cast: Cast, studio: Studio, located: Located) -> Located:
    """Add how the mask compares with random ones when its features are interchanged."""
    targets = lens.encode(cast.targets, "--targets", "target photos")
    record = interchange_record(session, lens, studio, located.mask, targets, cast.used)
    return Located(located.mask, {**located.evidence, "interchange": record})


def located_by(session: Session, lens: Lens, cast: Cast, plan: SwapPlan | None, studio: Studio | None) -> Located:
    """Score the features by the method of the configuration, and choose.

    Raises:
        PhotoError: photos cannot be used, or retained people are not told apart where they have to be.
    """
    params = session.config.locate
    rng = session.random("locate", params.method)
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
