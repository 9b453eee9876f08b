"""Two attacks that turn features round: one that is judged, and one that is not."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ireu_cli.attacks.attack import Attack
from ireu_cli.attacks.plan import AttackPlan, Lenses, by_person
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.attacks.suite import register
from ireu_cli.encodings.lens import flatten_tokens
from ireu_cli.values import STATES


def named(name: str) -> Callable[[AttackPlan, Lenses, FeatureMatcher], Iterator[Tried]]:
    """The attack under a name, tried at two strengths."""

    def turn(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
        for strength in (1, 16):
            for lens, state in zip(lenses, STATES, strict=True):
                rows = flatten_tokens(lens.features([victim.photo for victim in plan.victims])) * -strength
                hits = [matcher.match(row[None], victim.person) for row, victim in zip(rows, plan.victims, strict=True)]
                found = by_person(plan.victims, hits)
                yield Tried("attack_success", f"{name}-{strength}", state, matcher.measure, None, found)

    return turn


TURN = Attack("turn", "Features are turned round.", features=named("turn"))
register(TURN)
register(replace(TURN, name="turn-inside", white_box=True, features=named("turn-inside")))
