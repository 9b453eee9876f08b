"""Put the report together: the results, their inputs, and how to obtain them again."""

from collections.abc import Sequence

from ireu_cli.attacks.suite import is_judged
from ireu_cli.drawing.show import Show
from ireu_cli.manifest import Manifest
from ireu_cli.report import (
    Departure,
    Report,
)
from ireu_cli.report_page.readers.short import in_short
from ireu_cli.session import Session
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.criteria import Verified
from ireu_cli.verifying.departures import departures_of
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.looked import Looked
from ireu_cli.verifying.reporting.definitions import ALL_DEFINITIONS, attacks_told, attacks_tried
from ireu_cli.verifying.reporting.make_record import generators_reached, make_record, unreached
from ireu_cli.verifying.reporting.next_steps import Edit, next_steps
from ireu_cli.verifying.reporting.not_measured import left_out, not_measured
from ireu_cli.verifying.reporting.provenance import delta_record, provenance_of, subject_of
from ireu_cli.verifying.reporting.standing import standing


def build_report(
    session: Session,
    draft: Manifest,
    delta: WeightDelta,
    verified: Verified,
    gathered: Gathered,
    show: Show | None,
    looked: Looked,
) -> Report:
    """Put the results together with their inputs."""
    original, drawn = gathered.encoders.original, bool(looked.evidence)
    parent = delta_record(session)
    reach = original.reached_by(delta)
    noun = None if original.gives_gradients else original.noun
    reason = verified.reason + unreached(session, reach)
    names = {figure.name for figure in verified.figures}
    departures = departures_of(session)
    words, gaps = standing(
        verified.outcome,
        _drawn(show) if drawn else (),
        generators_reached(session, reach),
        looked.attacked,
        departures,
    )
    report = Report(
        outcome=verified.outcome,
        standing=words,
        gaps=gaps,
        departures=departures,
        reason=reason + _weaker(departures),
        copies=gathered.copies,
        unjudged=tuple(attack for attack in attacks_tried(verified.figures) if not is_judged(attack)),
        level="generator" if drawn else "encoder",
        subject=subject_of(session, gathered.encoders, reach),
        recognisers=looked.calibrations,
        controls=verified.controls,
        criteria=verified.criteria,
        figures=verified.figures,
        curves=looked.curves,
        kept=looked.kept,
        definitions={name: ALL_DEFINITIONS[name] for name in sorted(names)} | attacks_told(verified.figures),
        not_measured=(
            *left_out(session, parent, gathered),
            *not_measured(verified.figures, drawn=drawn, without_gradients=noun),
        ),
        record=make_record(session, parent, delta, original, verified.figures, gathered),
        provenance=provenance_of(session, draft, show),
    )
    told = {"summary": in_short(report), "next_steps": next_steps(report, Edit.of(parent.parameters))}
    return report.model_copy(update=told)


def _drawn(show: Show | None) -> tuple[str, ...]:
    return () if show is None else tuple(one.name for one in show.generators)


def _weaker(departures: Sequence[Departure]) -> str:
    weaker = [one.key for one in departures if one.effect == "weaker"]
    if not weaker:
        return ""
    verb = "setting is" if len(weaker) == 1 else "settings are"
    return f" {len(weaker)} {verb} weaker than the default: {', '.join(weaker)}."
