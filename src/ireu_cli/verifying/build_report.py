"""The report put together: what was found, what it was found on, and how to obtain it again."""

from collections.abc import Sequence
from typing import Any

from ireu_cli import __version__
from ireu_cli.attacks.success import ATTACK_DEFINITIONS
from ireu_cli.attacks.suite import is_judged, meaning_of
from ireu_cli.coverage import coverage_in, groups_for
from ireu_cli.drawing.before_and_after import Show
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.kinds import reach_with
from ireu_cli.encoders.reach import Reach
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.report import (
    NO_ATTACK,
    Calibration,
    Curve,
    Definition,
    Departure,
    ErasureRecord,
    Figure,
    Kept,
    Provenance,
    Report,
    Subject,
)
from ireu_cli.session import Session
from ireu_cli.support.runtime import environment
from ireu_cli.unlearning.requests import at_hand
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.criteria import Verified
from ireu_cli.verifying.departures import departures_of
from ireu_cli.verifying.erasure_record import LIMITS, erasure_record
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.figures import DEFINITIONS
from ireu_cli.verifying.pictures.distance_figures import QUALITY_DEFINITIONS
from ireu_cli.verifying.pictures.picture_figures import PICTURE_DEFINITIONS
from ireu_cli.verifying.rival.rival_figures import GATE_DEFINITIONS
from ireu_cli.verifying.standing import standing

_ALL_DEFINITIONS = PICTURE_DEFINITIONS | DEFINITIONS | ATTACK_DEFINITIONS | GATE_DEFINITIONS | QUALITY_DEFINITIONS
_WITHOUT_PICTURES = (
    "Generated pictures: no generator was given, so nothing is said about what a generator draws.",
    "Recognisers and the face-match gate: the features judged themselves.",
)
_WITHOUT_ATTACKS = "Attacks that try to bring the person back: switched off by attacks.suite, or no photos to attack."
_WITHOUT_GRADIENTS = "Adversarial noise and relearning: the encoder is an ONNX network, which gives no gradients."
_ATTACKS_UNDRAWN = "Pictures under attack: switched off by attacks.drawn; attacks were judged on features."
_PERCEPTUAL = "LPIPS: its networks are not at hand."
_SERVED = "The exported file: `ireu export` verifies it again in the dtype that it is served in, on features."


def build_report(
    session: Session,
    draft: Manifest,
    delta: WeightDelta,
    encoders: tuple[ImageEncoder, ImageEncoder],
    verified: Verified,
    gathered: Gathered,
    show: Show | None,
    *,
    calibrations: Sequence[Calibration] = (),
    curves: Sequence[Curve] = (),
    kept: Sequence[Kept] = (),
    drawn: bool,
    attacked: Sequence[str | None] = (),
) -> Report:
    """Put what was found together with what it was found on."""
    original, edited = encoders
    parent = _parent(session)
    reach = reach_with(original, delta)
    reason = verified.reason
    if session.config.encoder.tap not in reach.taps:
        reason += f" The delta does not reach {session.config.encoder.tap}: {reach.sentence()}."
    names = {figure.name for figure in verified.figures}
    departures = departures_of(session)
    words, gaps = standing(
        verified.outcome, _drawn(show) if drawn else (), _generators_reached(session, reach.taps), attacked, departures
    )
    return Report(
        outcome=verified.outcome,
        standing=words,
        gaps=gaps,
        departures=departures,
        reason=reason + _weaker(departures),
        copies=gathered.copies,
        unjudged=tuple(attack for attack in _tried(verified.figures) if not is_judged(attack)),
        level="generator" if drawn else "encoder",
        subject=_subject(session, original, edited, reach),
        recognisers=tuple(calibrations),
        controls=verified.controls,
        criteria=verified.criteria,
        figures=verified.figures,
        curves=tuple(curves),
        kept=tuple(kept),
        definitions={name: _ALL_DEFINITIONS[name] for name in sorted(names)} | _attacks_told(verified.figures),
        not_measured=(
            *_left_out(session, parent, gathered),
            *_not_measured(verified.figures, drawn=drawn, gradients=original.gives_gradients),
        ),
        record=make_record(session, parent, delta, original, verified.figures, gathered),
        provenance=_provenance(session, draft, show),
    )


def _subject(session: Session, original: ImageEncoder, edited: ImageEncoder, reach: Reach) -> Subject:
    return Subject(
        original_encoder=original.fingerprint,
        edited_encoder=edited.fingerprint,
        delta_manifest=_parent(session).digest,
        tap=session.config.encoder.tap,
        served_dtype=session.config.encoder.dtype,
        taps_reached=reach.taps,
        taps_missed=reach.missed,
    )


def _drawn(show: Show | None) -> tuple[str, ...]:
    return () if show is None else tuple(one.name for one in show.generators)


def _generators_reached(session: Session, taps: Sequence[str]) -> list[str]:
    """Names of the encoder's own generators whose way of reading it the edit reaches."""
    bundle = find_bundle(session.config.encoder.source)
    return [] if bundle is None else [entry.name for entry in bundle.generators if entry.tap in taps]


def _weaker(departures: Sequence[Departure]) -> str:
    weaker = [one.key for one in departures if one.effect == "weaker"]
    if not weaker:
        return ""
    verb = "setting is" if len(weaker) == 1 else "settings are"
    return f" {len(weaker)} {verb} weaker than the default: {', '.join(weaker)}."


def make_record(
    session: Session,
    parent: Manifest,
    delta: WeightDelta,
    original: ImageEncoder,
    figures: Sequence[Figure],
    gathered: Gathered | None,
) -> ErasureRecord:
    """The erasure record of this run.

    Args:
        session: the run; its section `record` holds what the operator states.
        parent: the record of unlearning.
        delta: the change of the weights.
        original: the original encoder.
        figures: what was measured; names the attacks that were tried.
        gathered: everybody's photos; None where they are not at hand.
    """
    taps = reach_with(original, delta).taps
    bundle = find_bundle(session.config.encoder.source)
    systems = [] if bundle is None else [(f"generator {e.name} ({e.tap})", e.tap) for e in bundle.generators]
    known = coverage_in(groups_for(session.config.encoder, original), taps)
    tried = dict.fromkeys(f.attack for f in figures if f.attack not in {None, NO_ATTACK})
    used = sum(len(person.photos) for person in parent.targets)
    return erasure_record(
        session.config.record,
        revision=session.config.encoder.revision,
        people=len(parent.targets),
        photos_supplied=used if gathered is None else len(gathered.targets.flat) + gathered.copies,
        photos_used=used,
        delta=delta,
        systems_covered=[
            *(name for name, tap in systems if tap in taps),
            *(one.sentence() for one in known if one.status == "covered"),
        ],
        systems_missed=[
            *(name for name, tap in systems if tap not in taps),
            *(one.sentence() for one in known if one.status != "covered"),
        ],
        attacks_tried=[name for name in tried if name],
        limits=LIMITS,
    )


def _attacks_told(figures: Sequence[Figure]) -> dict[str, Definition]:
    """What each attack does, by the name that figures have it under."""
    return {
        attack: Definition(text=text, unit="share", reference="photos of attacked targets")
        for attack in _tried(figures)
        if (text := meaning_of(attack)) is not None
    }


def _tried(figures: Sequence[Figure]) -> list[str]:
    """The attacks that there are figures of."""
    return sorted({figure.attack for figure in figures if figure.attack is not None})


def _left_out(session: Session, parent: Manifest, gathered: Gathered) -> tuple[str, ...]:
    """Whom else the delta unlearns, and who is looked at and not unlearned by it, as far as photos tell.

    It is also said aloud: a verdict is easily taken to be about everybody.
    """
    cases, strangers = at_hand(session, parent, gathered.targets.photos)
    texts = []
    if cases:
        texts.append(
            f"People of {len(cases)} of the delta's requests ({', '.join(cases)}): none of the photos that unlearning "
            "used of them is among the targets' photos, so this run says nothing of them, or cannot tell that it does."
        )
    if strangers:
        texts.append(
            f"Whether the delta unlearns {strangers} of the {len(gathered.targets.photos)} targets at all: no request "
            "was made from any of their photos."
        )
    for text in texts:
        session.talk.note(f"Not measured: {text}")
    return tuple(texts)


def _not_measured(figures: Sequence[Figure], *, drawn: bool, gradients: bool) -> tuple[str, ...]:
    if not figures:
        return ("Everything: the outcome stood fixed before figures could be measured.",)
    attacked = {figure.generator for figure in figures if figure.name == "attack_success"}
    missing = [] if drawn else list(_WITHOUT_PICTURES)
    if not attacked:
        missing.append(_WITHOUT_ATTACKS)
    elif drawn and attacked == {None}:
        missing.append(_ATTACKS_UNDRAWN)
    if not gradients:
        missing.append(_WITHOUT_GRADIENTS)
    return (*missing, *([_PERCEPTUAL] if drawn else []), _SERVED)


def _provenance(session: Session, draft: Manifest, show: Show | None) -> Provenance:
    plan: dict[str, Any] = dict(draft.parameters)
    digests = {"identity of the run": draft.identity, "manifest of the delta": _parent(session).digest}
    if show is not None:
        digests |= {f"generator {one.name}": one.fingerprint for one in show.generators}
        digests |= {f"recogniser {net.name}": net.fingerprint for net in show.panel.recognisers}
        digests["panel"] = show.panel.fingerprint
    return Provenance(
        tool_version=__version__,
        plan_digest=digest_of(plan),
        plan=plan,
        seed=session.config.seed,
        digests=digests,
        environment=environment(session.config.run.device, session.config.run.batch_size),
        command="ireu verify --delta DELTA --force, from the folder where the run began, or with --run-dir; a report "
        "that is not shown people leaves --with-pictures out",
    )


def _parent(session: Session) -> Manifest:
    if session.parent is None:
        raise RuntimeError("a report has a delta")
    return session.parent
