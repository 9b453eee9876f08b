"""What verification looks at besides features: pictures, attacks, the rival, and the judges' operating points."""

from dataclasses import dataclass

from ireu_cli.drawing.before_and_after import draw_all
from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.drawing.panel import Panel
from ireu_cli.drawing.seen_photos import Photos, look_at_photos
from ireu_cli.drawing.show import Show
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.report import Calibration, Curve, Figure, Kept
from ireu_cli.session import Session
from ireu_cli.values import GateLedger, Groups, Ledger, Pair
from ireu_cli.verifying.criteria import unusable
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.operating_points import calibrated
from ireu_cli.verifying.pictures.curves import drawn_curves, kept_plot
from ireu_cli.verifying.pictures.picture_distances import measure_quality
from ireu_cli.verifying.under_attack import attack_features, attack_pictures, plan_attacks, where_attacked


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
    encoders: Pair[ImageEncoder],
    reader: PhotoReader,
    ledger: Ledger | GateLedger | None,
) -> Looked:
    """Draw, judge and attack, if there is a generator and the features allow a verdict."""
    if unusable(gathered.evidence) is not None:
        return Looked()
    siege = plan_attacks(session, parent, gathered, encoders, reader, ledger)
    attacks = attack_features(siege, gathered.evidence)
    attacked = where_attacked(siege, show)
    if show is None:
        return Looked(figures=attacks, attacked=attacked)
    photos = look_at_photos(session, show.panel, reader, Groups(gathered.targets, gathered.retained))
    calibrations, charts = _calibrate(session, show.panel, photos)
    drawn, evidence = draw_all(session, show, parent, encoders, photos, reader)
    figures = (*measure_quality(session, encoders.original, drawn, gathered.retained, reader), *attacks)
    figures += attack_pictures(session, show, parent, siege, photos)
    lines = (*charts, *drawn_curves(evidence))
    return Looked(drawn, evidence, calibrations, lines, kept_plot(evidence), figures, attacked)


def _calibrate(session: Session, panel: Panel, photos: Photos) -> tuple[tuple[Calibration, ...], tuple[Curve, ...]]:
    """Every recogniser's calibration on the run's own retained photos, before it judges targets."""
    found: list[Calibration] = []
    charts: list[Curve] = []
    for number, net in enumerate(panel.recognisers):
        retained = [rows for rows in photos.vectors[number].retained if len(rows)]
        config = session.config
        one, lines = calibrated(net.name, net.fingerprint, retained, config.judges, config.verify, config.seed)
        found.append(one)
        charts += lines
    return tuple(found), tuple(charts)
