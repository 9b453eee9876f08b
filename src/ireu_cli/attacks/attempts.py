"""Every picture that is drawn under attack: of which features, with which prompt, kept where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ireu_cli.attacks.attack import Drive, seed_of
from ireu_cli.attacks.plan import (
    AttackPlan,
    Lenses,
    Victim,
    attacked_features,
    decided_by,
    encode_disguised,
)
from ireu_cli.attacks.suite import attacks_of, disguises_of, photo_attacks
from ireu_cli.drawing.jobs import Job
from ireu_cli.drawing.shots import prompt_of
from ireu_cli.drawing.show import Show
from ireu_cli.generators.generator import Generator, ToDraw
from ireu_cli.manifest import digest_of
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.values import STATES


@dataclass(frozen=True)
class Attempt:
    """One picture under attack."""

    attack: str
    victim: Victim
    state: int
    job: Job


def attempts_of(plan: AttackPlan, show: Show, generator: Generator) -> Iterator[Attempt]:
    """Every picture that a generator draws under attack, in both states."""
    lenses = plan.lenses(generator.tap)
    for lens, word in zip(lenses, STATES, strict=True):
        encode_disguised(
            plan, lens, plan.drawn, disguises_of(plan), f"attacked photos for generator {generator.name}, {word}"
        )
    easel = _Easel(plan, show.bundle.prompt, lenses, [generator.null_of(lens.encoder) for lens in lenses])
    for name, attack in photo_attacks(plan):
        for victim in plan.drawn:
            given = partial(attacked_features, plan, victim=victim, attack=attack)
            content = decided_by(plan, victim, attack)
            yield from easel.attempts(Drive(name, victim, generator, None, seed_of(plan, victim, 0), given, content))
    for one in attacks_of(plan):
        if one.pictures is not None:
            for drive in one.pictures(plan, show, generator, lenses):
                yield from easel.attempts(drive)


@dataclass(frozen=True)
class _Easel:
    """What all pictures of one generator share."""

    plan: AttackPlan
    base: str
    lenses: Lenses
    nulls: Sequence[Tensor]

    def attempts(self, drive: Drive) -> Iterator[Attempt]:
        """The picture in both states."""
        prompt = prompt_of(self.base, drive.edit)
        digest = self.plan.session.run.keyed_digest(drive.victim.photo.sha256)
        content = [str(part) for part in drive.content]
        for state, lens in enumerate(self.lenses):
            generator = drive.generator
            folder, settings = [lens.name, *generator.bits], [generator.guidance, generator.scale]
            key = PictureCache.key("attack", drive.attack, *folder, *settings, digest, prompt, drive.seed, content)
            cache = PictureCache(self.plan.session.run.pictures / digest_of(folder)[:32])
            asked = partial(self._asked, drive, prompt, state)
            yield Attempt(drive.attack, drive.victim, state, Job(cache, key, asked, drive.generator))

    def _asked(self, drive: Drive, prompt: str, state: int) -> ToDraw:
        return ToDraw(drive.given(self.lenses[state])[0], self.nulls[state], prompt, drive.seed)
