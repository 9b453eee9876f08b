"""`ireu unlearn`: a mask to a delta."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from ireu_cli.config import Resolved
from ireu_cli.copies import keep_pictures
from ireu_cli.coverage import coverage_in, groups_for, recorded, refuse_missed, sentences
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.face_encoder import FaceEncoder
from ireu_cli.encoders.kinds import ImageEncoder, need_transformer, reach_in
from ireu_cli.encoders.onnx_gates import GATE_TENSORS
from ireu_cli.encoders.reach import Reach, select_weights
from ireu_cli.encoders.systems import Coverage, needed_taps
from ireu_cli.errors import InterruptedRunError
from ireu_cli.locating.swaps import plan_swaps
from ireu_cli.manifest import Manifest, PersonRecord, photos_of
from ireu_cli.photos import Cast, Lens, batch_of, load_cast, photo_reader, refuse_other_mask
from ireu_cli.session import Session, StepResult, Talk, check_parent, open_session
from ireu_cli.store.artifacts import delta_bytes, manifest_path, read_mask
from ireu_cli.unlearning.block import STEPS as BLOCK_STEPS
from ireu_cli.unlearning.block import block_for, unlearn_block
from ireu_cli.unlearning.block_inputs import gather_states
from ireu_cli.unlearning.gated.behind_network import unlearn_gates
from ireu_cli.unlearning.gated.in_transformer import carrying_block, carrying_names, edited_names, unlearn_gated
from ireu_cli.unlearning.published import ForgetSet, RetainSet, TrainState, planned_steps, unlearn
from ireu_cli.unlearning.requests import Earlier, read_earlier, requests_with, union, with_shared
from ireu_cli.values import FeatureMask, GateLedger, Json, Ledger, WeightDelta

_ALWAYS = frozenset({"unlearn.method", "unlearn.systems"})
"""What every method reads."""
_NOT_BLOCKS = frozenset(f"unlearn.{key}" for key in ("alpha", "layers", "direction", "mask_scope", "average_partners"))
_BLOCKS = frozenset(f"gated.{key}" for key in ("copies", "gain", "erase_photos"))
"""What `block` reads of `gated`'s settings."""


def run_unlearn(
    resolved: Resolved, talk: Talk, mask_path: Path, out: Path, *, force: bool, onto: Path | None = None
) -> StepResult:
    """Remove the targets from the encoder and write the change of its weights.

    Args:
        resolved: flags, environment and file.
        talk: how to speak.
        mask_path: the mask.
        out: the delta to write.
        force: overwrite what is there.
        onto: a delta of the method `gated` whose requests are kept beside the new one.

    Raises:
        IreuError: whatever is wrong with configuration, photos, encoder, mask or output, or the run diverges.
        KeyboardInterrupt: stopped; the checkpoint is written first.
    """
    if onto is not None:
        resolved = with_shared(resolved, onto)
    session = open_session("unlearn", resolved, talk, force=force, parent=mask_path, out=out)
    parent = check_parent(session, "locate")
    mask = read_mask(mask_path)
    cast = load_cast(session)
    encoder = session.encoder(dtype="float32")
    earlier = None if onto is None else read_earlier(session, encoder, onto)
    is_gated = session.config.unlearn.method == "gated"
    plan = _plan(session, encoder)
    for sentence in (plan.reach.sentence(), *sentences(plan.covered)):
        talk.note(sentence)
    if unused := _unused(resolved):
        talk.note(f"The method {resolved.config.unlearn.method} takes no notice of {', '.join(unused)}")
    lens = Lens(session, encoder, photo_reader(session.config))
    draft, theirs = _draft(session, encoder, cast, parent, earlier)
    with session.run.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.run.start(draft, out)
        keep_pictures(session, lens.reader, cast.targets.flat)
        if is_gated:
            name = session.config.record.case_id or draft.identity[:12]
            requests = requests_with(earlier, name, theirs)
            delta, summary = _gate(session, lens, cast, mask, name, earlier.ledger if earlier else None, plan.carrying)
            summary["requests"] = requests
        elif session.config.unlearn.method == "block":
            delta, summary = _train_block(session, lens, draft.identity, cast, mask)
        else:
            delta, summary = _train(session, lens, draft.identity, plan.names, *_sets(session, lens, cast, mask), mask)
        metrics = {
            "reach": {"taps": plan.reach.taps, "missed": plan.reach.missed},
            "coverage": recorded(plan.covered),
            **summary,
        }
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        manifest = session.put_file(out, delta_bytes(delta), finished)
    return StepResult(out, manifest, reused=False)


def _draft(
    session: Session, encoder: ImageEncoder, cast: Cast, mask: Manifest, earlier: Earlier | None
) -> tuple[Manifest, tuple[PersonRecord, ...]]:
    """Begin the manifest: everybody whom locating, this request or earlier ones used; and the request's own people."""
    theirs = session.records(cast.targets.photos)
    targets, retain = union(theirs, mask.targets), union(session.records(cast.used.photos), mask.retain)
    case = session.config.record.case_id
    extra: Json = {"case": case, "onto": earlier and earlier.manifest.digest}
    if earlier is not None:
        _beside(session, earlier, retain)
        targets, retain = union(targets, earlier.manifest.targets), union(retain, earlier.manifest.retain)
    is_gated = session.config.unlearn.method == "gated"
    return session.draft(encoder, targets=targets, retain=retain, extra=extra if is_gated else None), theirs


@dataclass(frozen=True)
class _Plan:
    """The weights that may change, what that reaches, and the block by which `gated` reaches tokens, if any."""

    names: list[str]
    reach: Reach
    covered: list[Coverage]
    carrying: int | None


def _plan(session: Session, encoder: ImageEncoder) -> _Plan:
    """Choose the weights to change, and refuse what does not reach the systems that the user names."""
    config = session.config
    groups, systems = groups_for(config.encoder, encoder), config.unlearn.systems
    wanted = needed_taps(systems, groups)
    carrying = None
    is_gated = config.unlearn.method == "gated"
    if is_gated and isinstance(encoder, Encoder):
        carrying = carrying_block(encoder, {config.encoder.tap, *wanted})
    names = _names(session, encoder, carrying)
    # Before the carrying block it is the class token alone that is flagged.
    moving = names if carrying is None else carrying_names(carrying)
    reach = reach_in(encoder, moving, class_token_only=is_gated and carrying is None)
    refuse_missed(systems, wanted, reach.taps)
    return _Plan(names, reach, coverage_in(groups, reach.taps, systems), carrying)


def _gate(
    session: Session,
    lens: Lens,
    cast: Cast,
    mask: FeatureMask,
    case: str,
    onto: Ledger | GateLedger | None,
    carrying: int | None,
) -> tuple[WeightDelta, dict[str, Json]]:
    # A ledger of the other kind is one of another encoder, which was refused.
    encoder = lens.encoder
    if isinstance(encoder, FaceEncoder):
        return unlearn_gates(session, lens, encoder, cast, mask, case, onto if isinstance(onto, GateLedger) else None)
    return unlearn_gated(session, lens, cast, mask, case, onto if isinstance(onto, Ledger) else None, carrying)


def _sets(session: Session, lens: Lens, cast: Cast, mask: FeatureMask) -> tuple[ForgetSet, RetainSet]:
    targets = lens.encode(cast.targets, "--targets", "target photos")
    used = lens.encode(cast.used, "--retain", "retained photos").flat
    plan = plan_swaps(session, lens, targets, cast.used).encode(lens)
    features = lens.features(plan.photos)
    refuse_other_mask(mask, features.shape[-1], lens.tap)
    forget = ForgetSet(
        pixels=lens.pixels(plan.photos),
        features=features,
        shifts=plan.shifts(lens, average=session.config.unlearn.average_partners),
        people=tuple(photo.person for photo in plan.photos),
    )
    nulls = lens.encoder.null_pixels()
    return forget, RetainSet(len(used), lambda positions: batch_of(lens, used, positions), nulls, lens.null_features())


def _unused(resolved: Resolved) -> list[str]:
    """What a flag set and the method does not read."""
    method = resolved.config.unlearn.method
    given = sorted(key for key, source in resolved.sources.items() if source == "flag" and key not in _ALWAYS)
    if method == "gated":
        return [key for key in given if key.startswith("unlearn.")]
    read = _BLOCKS if method == "block" else frozenset()
    passed_over = _NOT_BLOCKS if method == "block" else frozenset()
    return [key for key in given if key in passed_over or (key.startswith("gated.") and key not in read)]


def _beside(session: Session, earlier: Earlier, retain: tuple[PersonRecord, ...]) -> None:
    """Say where a request differs from those that it is added to."""
    if photos_of(retain) != photos_of(earlier.manifest.retain):
        session.talk.note(
            "The retained photos are not those of the earlier requests: each keeps its rate on its own, and verify "
            "takes all of them for used"
        )


def _names(session: Session, found: ImageEncoder, carrying: int | None) -> list[str]:
    """The weights that may change."""
    tap, method = session.config.encoder.tap, session.config.unlearn.method
    if method == "gated" and isinstance(found, FaceEncoder):
        return list(GATE_TENSORS)
    encoder = need_transformer(found, f"The method {method}")
    if method == "gated":
        return edited_names(encoder, carrying)
    layers = f"block:{block_for(encoder.blocks, tap)}" if method == "block" else session.config.unlearn.layers
    return select_weights(encoder.model.state_dict(), layers, encoder.blocks, tap, encoder.anatomy)


def _train(
    session: Session,
    lens: Lens,
    identity: str,
    names: list[str],
    forget: ForgetSet,
    retain: RetainSet,
    mask: FeatureMask,
) -> tuple[WeightDelta, dict[str, Json]]:
    params, config = session.config.unlearn, session.config
    start = _resume(session, identity)
    total = planned_steps(params, len(set(forget.people)))
    keep = _Keeper(session, identity)
    with session.timed("train"), session.talk.progress(f"unlearning ({params.method})", total) as advance:
        advance(start.step if start else 0, "")
        encoder = need_transformer(lens.encoder, f"The method {params.method}")
        return unlearn(
            encoder, lens.tap, names, forget, retain, mask.mask, params, config.seed, start, keep.on_step(advance)
        )


def _train_block(
    session: Session, lens: Lens, identity: str, cast: Cast, mask: FeatureMask
) -> tuple[WeightDelta, dict[str, Json]]:
    encoder, config = need_transformer(lens.encoder, "The method block"), session.config
    block = block_for(encoder.blocks, lens.tap)
    refuse_other_mask(mask, lens.null_features().shape[-1], lens.tap)
    gathered = gather_states(session, lens, encoder, cast, block)
    keep, start = _Keeper(session, identity), _resume(session, identity)
    total = BLOCK_STEPS if config.unlearn.steps == "auto" else config.unlearn.steps
    with session.timed("train"), session.talk.progress("unlearning (block)", total) as advance:
        advance(start.step if start else 0, "")
        return unlearn_block(
            encoder, lens.tap, block, gathered.given, gathered.held, gathered.others, gathered.nulls, mask.mask,
            config.gated.gain, config.unlearn, config.seed, start, keep.on_step(advance),
        )  # fmt: skip


class _Keeper:
    """Shows progress and writes checkpoints, by time, and once more when the run is stopped."""

    def __init__(self, session: Session, identity: str) -> None:
        self._session = session
        self._identity = identity
        self._last = monotonic()

    def on_step(self, advance: Callable[[int, str], None]) -> Callable[[TrainState], None]:
        def after(state: TrainState) -> None:
            try:
                forget, retain = state.losses[state.step - 1].tolist()
                advance(1, f"forget {forget:.3g}  retain {retain:.3g}")
                if monotonic() - self._last >= self._session.config.run.checkpoint_seconds:
                    self._write(state)
            except (KeyboardInterrupt, InterruptedRunError):
                self._write(state)
                raise

        return after

    def _write(self, state: TrainState) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
        self._session.run.write_checkpoint(self._identity, tensors, {"step": state.step})
        self._last = monotonic()


def _resume(session: Session, identity: str) -> TrainState | None:
    found = session.run.read_checkpoint(identity)
    if found is None:
        return None
    tensors, state = found
    step = int(str(state["step"]))
    session.talk.note(f"going on from step {step}")
    return TrainState.from_tensors(step, tensors)
