"""What verification looks at beside features: pictures, attacks, the rival, and the judges' own operating points."""

from dataclasses import dataclass

from ireu_cli.attacks.on_features import besiege_features
from ireu_cli.attacks.on_pictures import besiege_pictures
from ireu_cli.attacks.plan import plan_siege
from ireu_cli.attacks.siege import Siege
from ireu_cli.attacks.success import feature_matcher
from ireu_cli.attacks.suite import attacks_of
from ireu_cli.drawing.before_and_after import Drawn, Photos, Show, draw_all, look_at_photos
from ireu_cli.drawing.panel import Panel
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.photos import among
from ireu_cli.report import Calibration, Curve, Figure, Kept
from ireu_cli.session import Session
from ireu_cli.values import GateLedger, Ledger
from ireu_cli.verifying.criteria import unusable
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.operating_points import calibrated
from ireu_cli.verifying.pictures.curves import drawn_curves, kept_plot
from ireu_cli.verifying.pictures.picture_distances import measure_quality
from ireu_cli.verifying.rival.rival_gate import evade_gate, measure_gate


@dataclass(frozen=True)
class Looked:
    """What recognisers contribute: pictures before and after, calibrations, charts, and figures beside them."""

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
    encoders: tuple[ImageEncoder, ImageEncoder],
    reader: PhotoReader,
    ledger: Ledger | GateLedger | None,
) -> Looked:
    """Draw, judge and attack, where there is a generator, and where features allow a verdict at all."""
    if unusable(gathered.evidence) is not None:
        return Looked()
    siege = plan_siege(session, parent, encoders, gathered.targets.photos, gathered.retained.flat, reader, ledger)
    matcher = feature_matcher(gathered.evidence, session.config.verify.false_match_rate)
    attacks = () if siege is None else besiege_features(siege, matcher)
    attacked = _attacked(siege, show)
    if show is None:
        return Looked(figures=attacks, attacked=attacked)
    photos = look_at_photos(session, show.panel, reader, (gathered.targets, gathered.retained))
    calibrations, charts = _calibrate(session, show.panel, photos)
    drawn, evidence = draw_all(session, show, parent, encoders, photos, reader)
    figures = (*measure_quality(session, encoders[0], drawn, gathered.retained, reader), *attacks)
    figures += _attack_pictures(session, show, parent, siege, photos)
    lines = (*charts, *drawn_curves(evidence))
    return Looked(drawn, evidence, calibrations, lines, kept_plot(evidence), figures, attacked)


def _attacked(siege: Siege | None, show: Show | None) -> tuple[str | None, ...]:
    """Where attacks that are judged were asked for: None for features, then generators."""
    if siege is None:
        return ()
    judged = [attack for attack in attacks_of(siege) if not attack.white_box]
    features = any(attack.photo is not None or attack.features is not None for attack in judged)
    drawn = any(attack.photo is not None or attack.pictures is not None for attack in judged)
    generators = () if show is None or not siege.drawn or not drawn else tuple(one.name for one in show.generators)
    return (*((None,) if features else ()), *generators)


def _attack_pictures(
    session: Session, show: Show, parent: Manifest, siege: Siege | None, photos: Photos
) -> tuple[Figure, ...]:
    figures, gates = measure_gate(session, show.panel, photos, among(session, parent.targets))
    if siege is None:
        return figures
    evaded, passed = evade_gate(siege, show.panel, gates)
    drawn = besiege_pictures(siege, show, photos, passed) if siege.drawn else ()
    return (*figures, *evaded, *drawn)


def _calibrate(session: Session, panel: Panel, photos: Photos) -> tuple[tuple[Calibration, ...], tuple[Curve, ...]]:
    """Every recogniser on the run's own retained photos, before it says anything of targets."""
    found: list[Calibration] = []
    charts: list[Curve] = []
    for number, net in enumerate(panel.recognisers):
        retained = [rows for rows in photos.vectors[number][1] if len(rows)]
        config = session.config
        one, lines = calibrated(net.name, net.fingerprint, retained, config.judges, config.verify, config.seed)
        found.append(one)
        charts += lines
    return tuple(found), tuple(charts)
