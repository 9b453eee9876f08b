"""`ireu export`: a delta to a drop-in encoder, checked in the dtype it is served in before it takes its place."""

import hashlib
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.coverage import coverage_in, groups_for, recorded, sentences
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.face_encoder import FaceEncoder, with_gates
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import checkpoint_of
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.fingerprint import Print
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.kinds import (
    checkpoint_for,
    face_network,
    lies_in_checkpoint,
    load_encoder,
    need_network,
    reach_with,
    with_delta,
)
from ireu_cli.encoders.systems import Coverage
from ireu_cli.errors import ArtifactError, ConfigError, VanishedEditError
from ireu_cli.exporting.layouts import (
    copied_digests,
    layout_for,
    served_dtype,
    stored_dtype,
    written_dtype,
)
from ireu_cli.exporting.model_card import Told, write_card
from ireu_cli.exporting.pack import pack_of, write_pack
from ireu_cli.exporting.rounding import kept_in_weights, kept_share
from ireu_cli.exporting.transformer import (
    Aside,
    aside,
    edit_of,
    prints_of,
    refuse_changed,
    refuse_unlike,
    write_transformer,
)
from ireu_cli.manifest import Manifest
from ireu_cli.params import Dtype, EncoderParams, ExportParams
from ireu_cli.photos import Lens, photo_reader
from ireu_cli.session import Session, StepResult, Talk, check_parent, landmarks_in, open_session
from ireu_cli.store.artifacts import EXPORT_MANIFEST_NAME, read_delta
from ireu_cli.store.files import file_sha256, files_below, write_bytes
from ireu_cli.values import Json, WeightDelta
from ireu_cli.verifying.build_report import make_record
from ireu_cli.verifying.criteria import verify
from ireu_cli.verifying.feature_evidence import gather, load_people
from ireu_cli.verifying.verdict import Verdict, failed, find_verdict, refuse_failed, with_findings

NETWORKS = ("onnx", "insightface-pack")
"""Layouts of face-embedding networks."""


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
        talk: how to speak.
        delta_path: the delta.
        out: the folder to write.
        force: overwrite what is there.
        report: the report of the delta; None looks for it beside the delta.
        allow_failed: export an edit whose verification failed all the same.

    Raises:
        FailedErasureError: the verification of the delta, or of what was written, failed.
        VanishedEditError: rounding to the served dtype loses the edit.
        IreuError: whatever is wrong with configuration, encoder, delta or output.
    """
    session = open_session("export", resolved, talk, force=force, parent=delta_path, out=out)
    parent = check_parent(session, "unlearn")
    verdict = find_verdict(session, parent, delta_path.parent, report)
    refuse_failed(verdict, allowed=allow_failed)
    delta = read_delta(delta_path)
    lean = lies_in_checkpoint(session.config.encoder.tap) and not _at_hand(session)
    # Without photos there is nothing to encode, and the weights stay in their file.
    original, source = _outlined(session) if lean else _loaded(session)
    _check_network(source, session.config.export)
    if source is not None:
        layout_for(session.config.export.format, source)
    _refuse_own_place(session, source, out)
    draft = session.draft(original, extra=None if verdict is None else {"report": verdict.digest})
    with session.run.lock(out), aside() as beside:
        # Reading all weights takes as long as copying them.
        prints = None if source is None else beside.do(partial(prints_of, session, original, source))
        record = out / EXPORT_MANIFEST_NAME
        if prints is not None and record.exists():
            # Of what is there already nothing is noted for another encoder.
            prints.result()
        if (done := session.already_done(draft, record, out)) is not None:
            _say(session, verdict)
            return StepResult(out, done, reused=True)
        session.run.start(draft, out)
        stand = _Stand(parent, verdict, allow_failed)
        manifest = _write(session, draft, stand, original, source, prints, delta, out, beside)
        _say(session, verdict)
    return StepResult(out, manifest, reused=False)


@dataclass(frozen=True)
class _Stand:
    """What an export rests on: the record of its delta, and of the delta's verification, where there is one."""

    parent: Manifest
    verdict: Verdict | None
    allow_failed: bool


def _say(session: Session, verdict: Verdict | None) -> None:
    """How the verification of the delta ended, last of all."""
    if verdict is not None:
        session.talk.note(f"verification of this delta: {verdict.words}")


def _outlined(session: Session) -> tuple[Encoder, Checkpoint]:
    source = checkpoint_of(session.config.encoder)
    return session.outline(source), source


def _loaded(session: Session) -> tuple[ImageEncoder, Checkpoint | None]:
    original = session.encoder(dtype="float32")
    return original, checkpoint_for(session.config.encoder)


def _refuse_own_place(session: Session, source: Checkpoint | None, out: Path) -> None:
    """Refuse to replace the original: not even --force may lose what deltas are made for.

    Raises:
        ArtifactError: the output is the original, or holds it.
    """
    place = source.source if source is not None else face_network(session.config.encoder.source)
    if place is not None and place.resolve().is_relative_to(out.resolve()):
        raise ArtifactError(f"{out} holds the original encoder", "Name another folder with --out")


def _check_network(source: Checkpoint | None, params: ExportParams) -> None:
    is_network = source is None
    if is_network != (params.format in NETWORKS) and params.format != "auto":
        own = " or ".join(NETWORKS) if is_network else "a layout of transformers"
        raise ConfigError(f"This encoder cannot be exported as {params.format}", f"Use --format {own}, or leave it out")
    if is_network and params.dtype not in {"auto", "float32"}:
        raise ConfigError(
            f"An ONNX network is exported in the precision that it was saved in, not in {params.dtype}",
            "Leave out the dtype",
        )


def _at_hand(session: Session) -> bool:
    """Whether there are photos to verify the export with."""
    return session.config.data.targets is not None and session.config.data.retain is not None


def _write(
    session: Session,
    draft: Manifest,
    stand: _Stand,
    original: ImageEncoder,
    source: Checkpoint | None,
    prints: Future[dict[str, Print]] | None,
    delta: WeightDelta,
    out: Path,
    beside: Aside,
) -> Manifest:
    parent, verdict = stand.parent, stand.verdict
    dtype = "float32" if source is None else served_dtype(session.config.export.dtype, source)

    def fill(folder: Path) -> Manifest:
        edit = None if source is None else edit_of(session, source, delta)
        # The digest of a copy takes longer than the copy.
        digests = None if edit is None else beside.do(partial(copied_digests, edit, folder))
        flushed: Future[None] | None = None
        if edit is None or prints is None:
            network = need_network(original, "A layout of networks")
            place, fingerprint = _write_network(session, network, delta, folder)
        else:
            place, fingerprint, flushed = write_transformer(session, parent, original, edit, prints, folder, beside)
        metrics = _check_served(session, parent, original, place, source, delta, dtype)
        again = metrics["verified_again"]
        if again is not None and again["outcome"] == "fail" and not stand.allow_failed:
            raise failed(f"What was written in {dtype} failed when it was verified again. {again['reason']}")
        covered, reached = _reached(session, original, delta)
        metrics |= reached | {"edited_encoder": fingerprint}
        metrics["verification"] = None if verdict is None else verdict.recorded()
        # What is found by drawing and attacking stands in the report, and is told as it stands there.
        record = with_findings(make_record(session, parent, delta, original, (), None), verdict)
        metrics["record"] = record.model_dump(mode="json")
        _write_card(session, source, covered, metrics, verdict, folder)
        known = {} if digests is None else digests.result()
        if flushed is not None:
            flushed.result()
        if source is not None:
            refuse_changed(source)
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        return session.seal(folder / EXPORT_MANIFEST_NAME, finished, files_below(folder), known)

    # It is made to be served, often by another user.
    return session.put_folder(out, fill, shared=True)


def _reached(session: Session, original: ImageEncoder, delta: WeightDelta) -> tuple[list[Coverage], dict[str, Json]]:
    """Which systems the edit covers, in words for the user as well, and what the manifest says of it."""
    reach = reach_with(original, delta)
    covered = coverage_in(groups_for(session.config.encoder, original), reach.taps)
    for sentence in sentences(covered):
        session.talk.note(sentence)
    return covered, {"taps_reached": reach.taps, "taps_missed": reach.missed, "coverage": recorded(covered)}


def _write_card(
    session: Session,
    source: Checkpoint | None,
    covered: list[Coverage],
    metrics: dict[str, Json],
    verdict: Verdict | None,
    folder: Path,
) -> None:
    params = session.config.encoder
    place = Path(params.source)
    is_local = place.exists() or find_bundle(params.source) is not None
    told = Told(
        library="transformers" if source is not None else "onnx",
        hub_id=None if is_local else params.source,
        revision=params.revision,
        verification=None if verdict is None else verdict.words,
        again=None if metrics["verified_again"] is None else str(metrics["verified_again"]["outcome"]),
        dtype=str(metrics["dtype"]),
        covered=tuple(covered),
    )
    if source is not None and not is_local:
        place = source.source
    # The folder around a lone file is somebody's: what lies there need not be of the file.
    write_card(folder, place if place.is_dir() else None, told)


def _write_network(session: Session, original: FaceEncoder, delta: WeightDelta, folder: Path) -> tuple[Path, str]:
    """Write a face-embedding network and read it back; returns its place and its fingerprint."""
    config = session.config
    edited = with_gates(original, delta)
    wanted = config.export.format
    source = Path(config.encoder.source)
    network = face_network(config.encoder.source)
    if network is None:
        raise RuntimeError("a face-embedding network lies in a file")
    in_a_pack = find_bundle(config.encoder.source) is None and is_pack(source)
    if wanted == "insightface-pack" or (wanted == "auto" and in_a_pack):
        left_out = write_pack(pack_of(source, network), network, edited, folder)
        for name in left_out:
            session.talk.note(f"left out of the pack: {name}, a recogniser that insightface would fall back to")
        place, written = folder, recogniser_in(folder)
    else:
        place = written = folder / edited.file
        write_bytes(written, edited.content)
    # These very bytes were opened and run; a pack is looked up by insightface's rules.
    refuse_unlike(file_sha256(written) == hashlib.sha256(edited.content).hexdigest())
    return place, edited.fingerprint


def _check_served(
    session: Session,
    parent: Manifest,
    original: ImageEncoder,
    place: Path,
    source: Checkpoint | None,
    delta: WeightDelta,
    dtype: Dtype,
) -> dict[str, Json]:
    """Compare the written encoder with the one that was meant, and verify it where the photos are at hand."""
    # Gates are written as they are.
    weights, touched = 1.0, 1.0
    if source is not None:
        own = {name: partial(source.__getitem__, name) for name in delta.tensors}
        kinds = {name: written_dtype(session.config.export.dtype, source[name]) for name in own}
        weights, touched = kept_in_weights(own, delta.tensors, kinds)
    stored = dtype if source is None else stored_dtype(session.config.export.dtype, source)
    found: dict[str, Json] = {"dtype": stored, "edit_kept_in_weights": weights, "edited_weights_that_change": touched}
    if not _at_hand(session):
        session.talk.note(
            "photos not at hand: the edit is checked in the weights alone; --targets and --retain verify it again"
        )
        _refuse_vanished(weights, session.config.export.min_edit_kept, dtype)
        return found | {"verified_again": None}
    params = EncoderParams(source=str(place), tap=session.config.encoder.tap, dtype=dtype)
    served = load_encoder(params, landmarks_in(session.config.data), session.config.run.device)
    # An ONNX network is written in the precision that it has, and read back as it was written.
    kept = 1.0
    if source is not None:
        kept = _kept_in_features(session, parent, original, served, with_delta(original, delta), dtype)
    _refuse_vanished(kept, session.config.export.min_edit_kept, dtype)
    gathered = gather(session, parent, original, served, load_people(session, parent), photo_reader(session.config))
    verified = verify(gathered.evidence, session.config.verify, session.config.seed)
    stands = "" if stored == dtype else f" (weights in {stored})"
    session.talk.note(f"verified again in {dtype}{stands}, on features alone: {verified.outcome}. {verified.reason}")
    criteria = {criterion.name: criterion.found for criterion in verified.criteria}
    return found | {
        "edit_kept_in_features": kept,
        "verified_again": {"outcome": verified.outcome, "reason": verified.reason, "criteria": criteria},
    }


def _kept_in_features(
    session: Session, parent: Manifest, original: ImageEncoder, served: ImageEncoder, full: ImageEncoder, dtype: Dtype
) -> float:
    """`kept_share` of the change on target photos, between served and full precision, each against its own original."""
    reader = photo_reader(session.config)
    rounded = with_delta(original, WeightDelta({}), dtype)
    people = load_people(session, parent)[0]
    lenses = [Lens(session, encoder, reader) for encoder in (original, full, rounded, served)]
    for lens in lenses:
        lens.encode(people, "--targets", "target photos, served dtype")
    before, after, before_served, after_served = (lens.features(people.flat) for lens in lenses)
    return kept_share(after - before, after_served - before_served)


def _refuse_vanished(kept: float, needed: float, dtype: str) -> None:
    # What is no number is not enough either.
    if not kept >= needed:
        raise VanishedEditError(
            f"In {dtype} only {kept:.0%} of the edit is left, {needed:.0%} is needed",
            "Export in float32, or make a stronger edit",
        )
