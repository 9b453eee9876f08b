"""The bypass suite in features: whether the edited encoder gives the person away under attack."""

from collections.abc import Iterator

from torch import Tensor

from ireu_cli.attacks.by_gradient import noise_on_detectors, noise_on_features, relearning
from ireu_cli.attacks.plan import Siege, attacked_features, by_person, encode_disguised, photo_attacks
from ireu_cli.attacks.success import FeatureMatcher, Tried, attack_figures
from ireu_cli.measuring.drawn_evidence import STATES
from ireu_cli.photos import Lens, flatten_tokens
from ireu_cli.report import Figure, State


def besiege_features(siege: Siege, matcher: FeatureMatcher) -> tuple[Figure, ...]:
    """Attack the features at the configured tap, before the edit and after it."""
    tried: list[Tried] = []
    lenses = siege.lenses()
    for lens, state in zip(lenses, STATES, strict=True):
        encode_disguised(siege, lens, siege.victims, f"attacked photos, {state}")
        for name, attack in photo_attacks(siege):
            hits = [
                matcher.match(flatten_tokens(attacked_features(siege, lens, victim=v, attack=attack)), v.person)
                for v in siege.victims
            ]
            tried.append(_tried(name, state, matcher, by_person(siege.victims, hits)))
    for name, state, features in _noisy(siege, lenses):
        hits = [
            matcher.match(flatten_tokens(row[None]), v.person) for row, v in zip(features, siege.victims, strict=True)
        ]
        tried.append(_tried(name, state, matcher, by_person(siege.victims, hits)))
    if "relearn" in siege.names and siege.session.config.attacks.relearn_steps:
        tried += relearning(siege, lenses, matcher)
    return attack_figures(tried, siege.session.config.verify, siege.session.config.seed)


def _noisy(siege: Siege, lenses: tuple[Lens, Lens]) -> Iterator[tuple[str, State, Tensor]]:
    if "pgd" in siege.names:
        yield from noise_on_features(siege, lenses, siege.victims)
    detectors = None if siege.ledger is None else siege.ledger.detectors
    if "pgd-detector" in siege.names and detectors is not None:
        yield from noise_on_detectors(siege, lenses, siege.victims, detectors)


def _tried(attack: str, state: State, matcher: FeatureMatcher, found: dict[int, Tensor]) -> Tried:
    return Tried("attack_success", attack, state, matcher.measure, None, found)
