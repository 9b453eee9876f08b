"""The success of attacks: how often a removed person is found again in features or in pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.identity import Enrolment, IdentitySpace, enrol
from ireu_cli.measuring.estimated import About, estimated
from ireu_cli.measuring.judgement import criterion
from ireu_cli.measuring.matching import Evidence
from ireu_cli.params import VerifyParams
from ireu_cli.report import NO_ATTACK, Criterion, Definition, Figure, Role, State
from ireu_cli.support.runtime import generator

ATTACK_DEFINITIONS = {
    "attack_success": Definition(
        text="Share of attempts after which the target matches at `false_match_rate`: in the tap's features, or in "
        "the drawn picture, by the named recogniser. The attack `none` is the unchanged photo. For `seeds`, an "
        "attempt is several pictures, and one match is enough.",
        unit="share",
        reference="photos of attacked targets, unseen ones first",
    ),
    "relearned": Definition(
        text="Share of the target's other photos that match in the tap's features after fine-tuning. The edited "
        "encoder was fine-tuned on some photos, for the given number of steps, to give the original encoder's "
        "features again. Role retained: the same photos of the target, after fine-tuning on a retained person's "
        "photos instead.",
        unit="share",
        reference="photos of attacked targets that were not fine-tuned on",
    ),
}


@dataclass(frozen=True)
class FeatureMatcher:
    """Decides whether features show a target, by an enrolment of each target in `space`."""

    space: IdentitySpace
    enrolments: Sequence[Enrolment]

    @property
    def measure(self) -> str:
        """Its name in the report."""
        return f"tap features, {self.space.kind}"

    def match(self, features: Tensor, person: int) -> Tensor:
        """Compare features (n, d) with the person's enrolment: float64 (n,), 1 or 0; NaN if features are not finite."""
        return self.enrolments[person].matches(self.space(features))


def feature_matcher(evidence: Evidence, rate: float) -> FeatureMatcher:
    """Enrol the targets with the original encoder's features of the photos that unlearning used (or of all photos).

    Args:
        evidence: finite features before the edit.
        rate: false-match rate on retained people's photos.
    """
    space = evidence.space
    everyone = evidence.impostors.vectors
    pools = [p.original[p.seen] if bool(p.seen.any()) else p.original for p in evidence.targets]
    return FeatureMatcher(space, [enrol(space(pool), everyone, rate) for pool in pools])


@dataclass(frozen=True)
class Tried:
    """The results of one attack, by attacked person: success of each attempt (n,), 1, 0, or NaN if unknown."""

    name: str
    attack: str
    state: State
    measure: str
    generator: str | None
    by_person: Mapping[int, Tensor]
    role: Role = "target-unseen"


def attack_figures(tried: Sequence[Tried], params: VerifyParams, seed: int) -> tuple[Figure, ...]:
    """Turn attempts into figures with intervals over people.

    Args:
        tried: attempts; those without any result are left out.
        params: false-match rate, resamples.
        seed: decides the bootstrap.
    """
    figures = (
        estimated(list(one.by_person.values()), _about(one, params), params.bootstrap, _rng(seed, one)) for one in tried
    )
    return tuple(figure for figure in figures if figure is not None)


def _about(one: Tried, params: VerifyParams) -> About:
    return About(
        name=one.name, role=one.role, state=one.state, measure=one.measure, generator=one.generator, attack=one.attack,
        unit="share", false_match_rate=params.false_match_rate,
    )  # fmt: skip


def _rng(seed: int, one: Tried) -> torch.Generator:
    return generator(seed, "bootstrap", one.name, one.attack, one.state, one.measure, one.generator or "", one.role)


def attack_criteria(
    figures: Sequence[Figure],
    attacked: Sequence[str | None],
    is_judged: Callable[[str], bool],
    params: VerifyParams,
) -> tuple[Criterion, ...]:
    """Compare the attack that succeeds most often with the limit, in features and for each generator.

    Args:
        figures: the results of `attack_figures`, and the gate's, which are ignored.
        attacked: generators that were to be attacked, None for features; without results the criterion is inconclusive.
        is_judged: whether figures of an attack count.
        params: the limit.
    """
    judged = [
        f
        for f in figures
        if f.name == "attack_success"
        and f.state == "edited"
        and f.attack is not None
        and f.attack != NO_ATTACK
        and is_judged(f.attack)
    ]
    criteria = []
    for name in attacked:
        found = [f for f in judged if f.generator == name]
        if not found:
            meaning = "share of attempts that the most successful attack wins"
            criteria.append(criterion("attacks", None, "at most", params.max_attack_success, meaning, name))
            continue
        worst = max(found, key=lambda f: f.value)
        meaning = f"share of attempts that the most successful attack ({worst.attack}) wins"
        criteria.append(criterion("attacks", worst.value, "at most", params.max_attack_success, meaning, name))
    return tuple(criteria)
