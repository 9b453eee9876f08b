"""What verification looks at besides features: pictures, attacks, the rival, and the judges' operating points."""

from dataclasses import dataclass

from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.drawing.seen_photos import look_at_photos
from ireu_cli.drawing.show import Show
from ireu_cli.manifest import Manifest
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.report import Calibration, Curve, Figure, Kept
from ireu_cli.session import Session
from ireu_cli.values import AnyLedger, Groups
from ireu_cli.verifying.criteria import unusable
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.operating_points import calibrated_panel
from ireu_cli.verifying.pictures.curves import drawn_curves, kept_plot
from ireu_cli.verifying.pictures.first_look import draw_all
from ireu_cli.verifying.pictures.picture_distances import measure_quality
from ireu_cli.verifying.under_attack import features_under_attack, pictures_under_attack, plan_attacks, where_attacked


@dataclass(frozen=True)
class Looked:
    """What recognisers contribute: pictures before and after, calibrations, charts, and further figures."""

    drawn: tuple[Drawn, ...] = ()
    evidence: tuple[GeneratorEvidence, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    curves: tuple[Curve, ...] = ()
    kept: tuple[Kept, ...] = ()
    figures: tuple[Figure, ...] = ()
    attacked: tuple[str | None, ...] = ()


def look(
    session: Session,
    show: Show | None,
    parent: Manifest,
    gathered: Gathered,
    ledger: AnyLedger | None,
) -> Looked:
    """Draw, judge and attack, if there is a generator and the features allow a verdict."""
    if unusable(gathered.evidence) is not None:
        return Looked()
    plan = plan_attacks(session, parent, gathered, ledger)
    if show is None:
        return Looked(figures=features_under_attack(plan, gathered), attacked=where_attacked(plan, show))
    photos = look_at_photos(gathered.encodings, show.panel, Groups(gathered.targets, gathered.retained))
    calibrations, charts = calibrated_panel(session.config, show.panel, photos)
    drawn, evidence = draw_all(session, show, parent, gathered, photos)
    figures = (
        *measure_quality(gathered.encodings, gathered.encoders.original, drawn, gathered.retained),
        *features_under_attack(plan, gathered),
    )
    figures += pictures_under_attack(session, show, parent, plan, photos)
    lines = (*charts, *drawn_curves(evidence))
    attacked = where_attacked(plan, show)
    return Looked(drawn, evidence, calibrations, lines, kept_plot(evidence), figures, attacked)
