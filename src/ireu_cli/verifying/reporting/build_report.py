"""The report put together: what was found, what it was found on, and how to obtain it again."""

from collections.abc import Sequence
from typing import Any

from ireu_cli import __version__
from ireu_cli.attacks.success import ATTACK_DEFINITIONS
from ireu_cli.attacks.suite import is_judged, meaning_of
from ireu_cli.drawing.before_and_after import Show
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.reach import Reach
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.report import (
    Calibration,
    Curve,
    Definition,
    Departure,
    Figure,
    Kept,
    Provenance,
    Report,
    Subject,
)
from ireu_cli.session import Session
from ireu_cli.support.runtime import environment
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.criteria import Verified
from ireu_cli.verifying.departures import departures_of
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.figures import DEFINITIONS
from ireu_cli.verifying.pictures.distance_figures import QUALITY_DEFINITIONS
from ireu_cli.verifying.pictures.picture_figures import PICTURE_DEFINITIONS
from ireu_cli.verifying.reporting.make_record import generators_reached, make_record
from ireu_cli.verifying.reporting.not_measured import left_out, not_measured
from ireu_cli.verifying.reporting.standing import standing
from ireu_cli.verifying.rival.rival_figures import GATE_DEFINITIONS

_ALL_DEFINITIONS = PICTURE_DEFINITIONS | DEFINITIONS | ATTACK_DEFINITIONS | GATE_DEFINITIONS | QUALITY_DEFINITIONS


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
    reach = original.reached_by(delta)
    reason = verified.reason
    noun = None if original.gives_gradients else original.noun
    if session.config.encoder.tap not in reach.taps:
        reason += f" The delta does not reach {session.config.encoder.tap}: {reach.sentence()}."
    names = {figure.name for figure in verified.figures}
    departures = departures_of(session)
    words, gaps = standing(
        verified.outcome, _drawn(show) if drawn else (), generators_reached(session, reach.taps), attacked, departures
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
            *left_out(session, parent, gathered),
            *not_measured(verified.figures, drawn=drawn, without_gradients=noun),
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


def _weaker(departures: Sequence[Departure]) -> str:
    weaker = [one.key for one in departures if one.effect == "weaker"]
    if not weaker:
        return ""
    verb = "setting is" if len(weaker) == 1 else "settings are"
    return f" {len(weaker)} {verb} weaker than the default: {', '.join(weaker)}."


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
