"""The attacks on features: whether the edited encoder reveals the person under attack."""

from ireu_cli.attacks.siege import Siege, attacked_features, by_person, encode_disguised
from ireu_cli.attacks.success import FeatureMatcher, Tried, attack_figures
from ireu_cli.attacks.suite import attacks_of, disguises_of, photo_attacks
from ireu_cli.encodings.lens import flatten_tokens
from ireu_cli.measuring.drawn_evidence import STATES
from ireu_cli.report import Figure


def besiege_features(siege: Siege, matcher: FeatureMatcher) -> tuple[Figure, ...]:
    """Attack the features at the configured tap, before the edit and after it."""
    tried: list[Tried] = []
    lenses = siege.lenses()
    for lens, state in zip(lenses, STATES, strict=True):
        encode_disguised(siege, lens, siege.victims, disguises_of(siege), f"attacked photos, {state}")
        for name, attack in photo_attacks(siege):
            hits = [
                matcher.match(flatten_tokens(attacked_features(siege, lens, victim=v, attack=attack)), v.person)
                for v in siege.victims
            ]
            found = by_person(siege.victims, hits)
            tried.append(Tried("attack_success", name, state, matcher.measure, None, found))
    for one in attacks_of(siege):
        if one.features is not None:
            tried += one.features(siege, lenses, matcher)
    return attack_figures(tried, siege.session.config.verify, siege.session.config.seed)
