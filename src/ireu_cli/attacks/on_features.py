"""The attacks on features: whether the edited encoder reveals the person under attack."""

from ireu_cli.attacks.plan import AttackPlan, attacked_features, by_person, encode_disguised
from ireu_cli.attacks.success import FeatureMatcher, Tried, attack_figures
from ireu_cli.attacks.suite import attacks_of, disguises_of, photo_attacks
from ireu_cli.encodings.lens import flatten_tokens
from ireu_cli.report import Figure
from ireu_cli.values import STATES


def attack_features(plan: AttackPlan, matcher: FeatureMatcher) -> tuple[Figure, ...]:
    """Attack the features at the configured tap, before the edit and after it."""
    tried: list[Tried] = []
    lenses = plan.lenses()
    for lens, state in zip(lenses, STATES, strict=True):
        encode_disguised(plan, lens, plan.victims, disguises_of(plan), f"attacked photos, {state}")
        for name, attack in photo_attacks(plan):
            hits = [
                matcher.match(flatten_tokens(attacked_features(plan, lens, victim=v, attack=attack)), v.person)
                for v in plan.victims
            ]
            found = by_person(plan.victims, hits)
            tried.append(Tried("attack_success", name, state, matcher.measure, None, found))
    for one in attacks_of(plan):
        if one.features is not None:
            tried += one.features(plan, lenses, matcher)
    return attack_figures(tried, plan.session.config.verify, plan.session.config.seed)
