"""Check that an export still is what was verified: how much of the edit is left in the served dtype."""

from functools import partial
from pathlib import Path

from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.errors import VanishedEditError
from ireu_cli.exporting.layouts import stored_dtype, written_dtype
from ireu_cli.exporting.rounding import kept_in_weights, kept_share
from ireu_cli.manifest import Manifest
from ireu_cli.params import Dtype, EncoderParams
from ireu_cli.session import Session, landmarks_in
from ireu_cli.values import Json, Pair, WeightDelta
from ireu_cli.verifying.criteria import verify
from ireu_cli.verifying.feature_evidence import gather, load_people


def check_served(
    session: Session,
    parent: Manifest,
    original: ImageEncoder,
    place: Path,
    source: Checkpoint | None,
    delta: WeightDelta,
    dtype: Dtype,
) -> dict[str, Json]:
    """Compare the written encoder with the intended one, and verify it if the photos are available."""
    # Gates are written as they are.
    weights, touched = 1.0, 1.0
    if source is not None:
        own = {name: partial(source.__getitem__, name) for name in delta.tensors}
        kinds = {name: written_dtype(session.config.export.dtype, source[name]) for name in own}
        weights, touched = kept_in_weights(own, delta.tensors, kinds)
    stored = dtype if source is None else stored_dtype(session.config.export.dtype, source)
    found: dict[str, Json] = {"dtype": stored, "edit_kept_in_weights": weights, "edited_weights_that_change": touched}
    if not at_hand(session):
        session.talk.note(
            "the photos are not available, so only the weights are checked; give --targets and --retain to verify "
            "the export too"
        )
        _refuse_vanished(weights, session.config.export.min_edit_kept, dtype)
        return found | {"verified_again": None}
    params = EncoderParams(source=str(place), tap=session.config.encoder.tap, dtype=dtype)
    served = load_encoder(params, landmarks_in(session.config.data), session.config.run.device)
    # An ONNX network is written in the precision that it has, and read back as it was written.
    kept = 1.0
    if source is not None:
        kept = _kept_in_features(session, parent, original, served, original.edited(delta), dtype)
    _refuse_vanished(kept, session.config.export.min_edit_kept, dtype)
    gathered = gather(session, parent, Pair(original, served), load_people(session, parent))
    verified = verify(gathered.evidence, session.config.verify, session.config.seed)
    stands = "" if stored == dtype else f" (weights in {stored})"
    session.talk.note(f"verified again in {dtype}{stands}, on features only: {verified.outcome}. {verified.reason}")
    criteria = {criterion.name: criterion.found for criterion in verified.criteria}
    return found | {
        "edit_kept_in_features": kept,
        "verified_again": {"outcome": verified.outcome, "reason": verified.reason, "criteria": criteria},
    }


def _kept_in_features(
    session: Session, parent: Manifest, original: ImageEncoder, served: ImageEncoder, full: ImageEncoder, dtype: Dtype
) -> float:
    """`kept_share` of the change on target photos: served against full precision, each relative to its own original."""
    reader = photo_reader(session.config)
    rounded = original.edited(WeightDelta({}), dtype)
    people = load_people(session, parent).targets
    lenses = [Lens(session, encoder, reader) for encoder in (original, full, rounded, served)]
    for lens in lenses:
        lens.encode(people, "--targets", "target photos, served dtype")
    before, after, before_served, after_served = (lens.features(people.flat) for lens in lenses)
    return kept_share(after - before, after_served - before_served)


def _refuse_vanished(kept: float, needed: float, dtype: str) -> None:
    # What is no number is not enough either.
    if not kept >= needed:
        raise VanishedEditError(
            f"In {dtype} only {kept:.0%} of the edit is left, and {needed:.0%} is needed",
            "Export in float32, or make a stronger edit",
        )


def at_hand(session: Session) -> bool:
    """Whether photos are available to verify the export."""
    return session.config.data.targets is not None and session.config.data.retain is not None
