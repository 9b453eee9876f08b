"""Attacks by a user of the generator: other prompts, noise and settings, with the same photo."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from ireu_cli.attacks.attack import Drive, seed_of
from ireu_cli.attacks.plan import AttackPlan, Lenses, Victim, attacked_features
from ireu_cli.drawing.show import Show
from ireu_cli.generators.generator import Generator
from ireu_cli.report import NO_ATTACK

GUIDANCE = (0.5, 2.0)
"""Factors on the generator's guidance that the attack `guidance` tries."""
SCALE = (0.6, 1.5)
"""Factors on the adapter's scale that the attack `scale` tries."""


def with_edits(plan: AttackPlan, _show: Show, generator: Generator, _lenses: Lenses) -> Iterator[Drive]:
    """One prompt for each edit that pictures are drawn with."""
    for victim in plan.drawn:
        for edit in plan.session.config.pictures.edits:
            yield Drive(f"prompt: {edit}", victim, generator, edit, seed_of(plan, victim, 0), plain(plan, victim))


def with_seeds(plan: AttackPlan, _show: Show, generator: Generator, _lenses: Lenses) -> Iterator[Drive]:
    """Several noises; the attacker takes the best picture."""
    count = plan.session.config.attacks.seeds
    for victim in plan.drawn:
        for number in range(count):
            yield Drive(f"seeds-{count}", victim, generator, None, seed_of(plan, victim, number), plain(plan, victim))


def with_guidance(plan: AttackPlan, _show: Show, generator: Generator, _lenses: Lenses) -> Iterator[Drive]:
    """Less guidance, and more guidance."""
    for victim in plan.drawn:
        for factor in GUIDANCE:
            driven = generator.with_settings(guidance=generator.guidance * factor)
            name = f"guidance-{driven.guidance:g}"
            yield Drive(name, victim, driven, None, seed_of(plan, victim, 0), plain(plan, victim))


def with_scale(plan: AttackPlan, _show: Show, generator: Generator, _lenses: Lenses) -> Iterator[Drive]:
    """A lower scale of the adapter, and a higher one."""
    for victim in plan.drawn:
        for factor in SCALE:
            driven = generator.with_settings(scale=generator.scale * factor)
            yield Drive(f"scale-{driven.scale:g}", victim, driven, None, seed_of(plan, victim, 0), plain(plan, victim))


def plain(plan: AttackPlan, victim: Victim) -> partial[Tensor]:
    """The features of the unchanged photo, which were encoded before."""
    return partial(attacked_features, plan, victim=victim, attack=NO_ATTACK)
