"""The attacks of a verification: tried on features, in pictures, and on a face-match gate."""

from ireu_cli.attacks.choosing import choose_attacks
from ireu_cli.attacks.on_features import attack_features
from ireu_cli.attacks.on_pictures import attack_pictures
from ireu_cli.attacks.plan import AttackPlan
from ireu_cli.attacks.success import feature_matcher
from ireu_cli.attacks.suite import attacks_of
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.drawing.show import Show
from ireu_cli.manifest import Manifest
from ireu_cli.photos import among
from ireu_cli.report import Figure
from ireu_cli.session import Session
from ireu_cli.values import AnyLedger
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.rival.rival_gate import evade_gate, measure_gate


def plan_attacks(
    session: Session,
    parent: Manifest,
    gathered: Gathered,
    ledger: AnyLedger | None,
) -> AttackPlan | None:
    """Choose the attacks and whose photos are attacked; None where none is asked for or possible."""
    targets, others = gathered.targets.photos, gathered.retained.flat
    return choose_attacks(session, parent, gathered.encoders, targets, others, gathered.encodings.reader, ledger)


def features_under_attack(plan: AttackPlan | None, gathered: Gathered) -> tuple[Figure, ...]:
    """Try every attack on features."""
    if plan is None:
        return ()
    return attack_features(plan, feature_matcher(gathered.evidence, plan.session.config.verify.false_match_rate))


def where_attacked(plan: AttackPlan | None, show: Show | None) -> tuple[str | None, ...]:
    """Where judged attacks were asked for: None for features, then generators."""
    if plan is None:
        return ()
    judged = [attack for attack in attacks_of(plan) if not attack.white_box]
    features = any(attack.photo is not None or attack.features is not None for attack in judged)
    drawn = any(attack.photo is not None or attack.pictures is not None for attack in judged)
    generators = () if show is None or not plan.drawn or not drawn else tuple(one.name for one in show.generators)
    return (*((None,) if features else ()), *generators)


def pictures_under_attack(
    session: Session, show: Show, parent: Manifest, plan: AttackPlan | None, photos: Photos
) -> tuple[Figure, ...]:
    """Show the attacked photos to a face-match gate, and draw under every attack."""
    figures, gates = measure_gate(session, show.panel, photos, among(session, parent.targets))
    if plan is None:
        return figures
    evaded, passed = evade_gate(plan, show.panel, gates)
    drawn = attack_pictures(plan, show, photos, passed) if plan.drawn else ()
    return (*figures, *evaded, *drawn)
