"""The attacks of a verification: tried on features, in pictures, and on a face-match gate."""

from ireu_cli.attacks.on_features import besiege_features
from ireu_cli.attacks.on_pictures import besiege_pictures
from ireu_cli.attacks.plan import plan_siege
from ireu_cli.attacks.siege import Siege
from ireu_cli.attacks.success import feature_matcher
from ireu_cli.attacks.suite import attacks_of
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.drawing.show import Show
from ireu_cli.manifest import Manifest
from ireu_cli.photos import among
from ireu_cli.report import Figure
from ireu_cli.session import Session
from ireu_cli.values import GateLedger, Ledger
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.rival.rival_gate import evade_gate, measure_gate


def plan_attacks(
    session: Session,
    parent: Manifest,
    gathered: Gathered,
    ledger: Ledger | GateLedger | None,
) -> Siege | None:
    """Choose the attacks and whose photos are attacked; None where none is asked for or possible."""
    targets, others = gathered.targets.photos, gathered.retained.flat
    return plan_siege(session, parent, gathered.encoders, targets, others, gathered.reader, ledger)


def attack_features(siege: Siege | None, gathered: Gathered) -> tuple[Figure, ...]:
    """Try every attack on features."""
    if siege is None:
        return ()
    return besiege_features(siege, feature_matcher(gathered.evidence, siege.session.config.verify.false_match_rate))


def where_attacked(siege: Siege | None, show: Show | None) -> tuple[str | None, ...]:
    """Where judged attacks were asked for: None for features, then generators."""
    if siege is None:
        return ()
    judged = [attack for attack in attacks_of(siege) if not attack.white_box]
    features = any(attack.photo is not None or attack.features is not None for attack in judged)
    drawn = any(attack.photo is not None or attack.pictures is not None for attack in judged)
    generators = () if show is None or not siege.drawn or not drawn else tuple(one.name for one in show.generators)
    return (*((None,) if features else ()), *generators)


def attack_pictures(
    session: Session, show: Show, parent: Manifest, siege: Siege | None, photos: Photos
) -> tuple[Figure, ...]:
    """Show the attacked photos to a face-match gate, and draw under every attack."""
    figures, gates = measure_gate(session, show.panel, photos, among(session, parent.targets))
    if siege is None:
        return figures
    evaded, passed = evade_gate(siege, show.panel, gates)
    drawn = besiege_pictures(siege, show, photos, passed) if siege.drawn else ()
    return (*figures, *evaded, *drawn)
