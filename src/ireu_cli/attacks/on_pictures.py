"""The bypass suite in pictures: what generators draw under attack."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ireu_cli.attacks.by_gradient import EPSILONS, features_of, noise_through_generator, noisy_pixels
from ireu_cli.attacks.plan import (
    AVERAGE,
    AVERAGED,
    Passed,
    Siege,
    Victim,
    attacked_features,
    by_person,
    disguise_key,
    encode_disguised,
    photo_attacks,
)
from ireu_cli.attacks.success import Tried, attack_figures
from ireu_cli.drawing.before_and_after import Photos, Show
from ireu_cli.drawing.jobs import Job, run_jobs
from ireu_cli.drawing.panel import Sight
from ireu_cli.drawing.shots import prompt_of
from ireu_cli.faces.disguise import Disguise
from ireu_cli.generators.generator import Generator
from ireu_cli.manifest import digest_of
from ireu_cli.measuring.drawn_evidence import STATES
from ireu_cli.measuring.galleries import Enrolment, enrolled, gallery_of, matched
from ireu_cli.photos import Lens
from ireu_cli.report import NO_ATTACK, Figure
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.support.runtime import generator as random_generator
from ireu_cli.values import RgbImage

GUIDANCE = (0.5, 2.0)
"""Factors on the generator's guidance that the attack `guidance` tries."""
SCALE = (0.6, 1.5)
"""Factors on the adapter's scale that the attack `scale` tries."""


@dataclass(frozen=True)
class _Way:
    """How a generator is driven: edit in the prompt, noise, settings. Pictures of one attack and victim are pooled."""

    attack: str
    edit: str | None
    seed: int
    generator: Generator


@dataclass(frozen=True)
class _Attempt:
    """One picture under attack."""

    attack: str
    victim: Victim
    state: int
    job: Job


def besiege_pictures(siege: Siege, show: Show, photos: Photos, passed: Passed) -> tuple[Figure, ...]:
    """Draw under every attack, before the edit and after it, and ask every recogniser.

    Args:
        siege: the plan.
        show: generators and panel.
        photos: everybody's photos as the panel sees them, for enrolments and thresholds.
        passed: which attacked photos a face-match gate lets through.
    """
    attempts = [one for generator in show.generators for one in _attempts(siege, show, generator)]
    run_jobs(siege.session, [one.job for one in attempts], f"attacks: {len(attempts)} pictures", "drawing under attack")
    sights = _look(siege, show, attempts)
    rate = siege.session.config.verify.false_match_rate
    tried: list[Tried] = []
    taps = {generator.name: generator.tap for generator in show.generators}
    for number, name in enumerate(show.panel.names):
        enrolments = _enrolments(siege, photos, number, rate)
        groups: dict[tuple[str, str, int], dict[Victim, list[Tensor]]] = {}
        for one, sight in zip(attempts, sights, strict=True):
            group = groups.setdefault((one.job.generator, one.attack, one.state), {})
            group.setdefault(one.victim, []).append(sight.vectors[number])
        for (drawer, attack, state), by_victim in groups.items():
            hits = {v: _hit(torch.stack(rows), enrolments[v.person]) for v, rows in by_victim.items()}
            found = by_person(list(hits), list(hits.values()))
            tried.append(Tried("attack_success", attack, STATES[state], name, drawer, found))
            through = [passed.get((name, attack, victim)) for victim in hits]
            # Noise is found for one tap; the gate was shown that of the configured one.
            same = not attack.startswith("pgd") or taps[drawer] == siege.session.config.encoder.tap
            if state == 0 and same and all(value is not None for value in through):
                beaten = [hit * float(value or 0) for hit, value in zip(hits.values(), through, strict=True)]
                tried.append(Tried("gate_beaten", attack, STATES[0], name, drawer, by_person(list(hits), beaten)))
    return attack_figures(tried, siege.session.config.verify, siege.session.config.seed)


def _enrolments(siege: Siege, photos: Photos, recogniser: int, rate: float) -> dict[int, Enrolment | None]:
    """Every attacked person as pictures are compared with, made once for all attacks and generators."""
    targets, retained = photos.vectors[recogniser]
    gallery = gallery_of(retained)
    people = dict.fromkeys(victim.person for victim in siege.drawn)
    return {person: enrolled(targets[person], gallery, rate) for person in people}


def _hit(vectors: Tensor, enrolment: Enrolment | None) -> Tensor:
    """Whether any of the pictures (n, d) matches the victim: (1,). One without a face shows nobody, so it does not."""
    if enrolment is None:
        return torch.full((1,), torch.nan, dtype=torch.float64)
    return matched(vectors, enrolment).nan_to_num(0).max().reshape(1)


def _look(siege: Siege, show: Show, attempts: Sequence[_Attempt]) -> list[Sight]:
    with siege.session.timed("judge"), siege.session.talk.progress("looking at attacks", len(attempts)) as advance:
        found = show.panel.look([(one.job.key, one.job.picture) for one in attempts], lambda count: advance(count, ""))
    return [found[one.job.key] for one in attempts]


def _attempts(siege: Siege, show: Show, generator: Generator) -> Iterator[_Attempt]:
    """Every picture that a generator draws under attack, in both states."""
    lenses = siege.lenses(generator.tap)
    for lens, word in zip(lenses, STATES, strict=True):
        encode_disguised(siege, lens, siege.drawn, f"attacked photos for generator {generator.name}, {word}")
    easel = _Easel(siege, show.bundle.prompt, lenses, [generator.null_of(lens.encoder) for lens in lenses])
    for victim in siege.drawn:
        plain = _Way(NO_ATTACK, None, _seed(siege, victim, 0), generator)
        for name, attack in photo_attacks(siege):
            trio = _content(siege, victim, attack)
            given = partial(attacked_features, siege, victim=victim, attack=attack)
            yield from easel.attempts(replace(plain, attack=name), victim, given, trio)
        for way in _ways(siege, generator, victim):
            given = partial(attacked_features, siege, victim=victim, attack=NO_ATTACK)
            yield from easel.attempts(way, victim, given, ())
    for name, rows, content in _noisy(siege, show, generator, lenses):
        for place, victim in enumerate(siege.drawn):
            way = _Way(name, None, _seed(siege, victim, 0), generator)
            yield from easel.attempts(way, victim, partial(_seen_noisy, rows[place : place + 1]), content)


def _content(siege: Siege, victim: Victim, attack: Disguise | str) -> Sequence[object]:
    """What decides the features of an attack beside the photo itself."""
    if isinstance(attack, Disguise):
        return (disguise_key(siege, victim, attack),)
    return [photo.sha256 for photo in siege.everyone[victim.person][:AVERAGED]] if attack == AVERAGE else ()


@dataclass(frozen=True)
class _Easel:
    """What every picture of one generator shares."""

    siege: Siege
    base: str
    lenses: tuple[Lens, Lens]
    nulls: Sequence[Tensor]

    def attempts(
        self, way: _Way, victim: Victim, given: Callable[[Lens], Tensor], content: Sequence[object]
    ) -> Iterator[_Attempt]:
        """The picture in both states; `given` gives what a lens sees, `content` names all else that decides it."""
        prompt = prompt_of(self.base, way.edit)
        digest = self.siege.session.run.keyed_digest(victim.photo.sha256)
        for state, lens in enumerate(self.lenses):
            decides = [lens.name, way.generator.fingerprint, way.generator.guidance, way.generator.scale]
            key = PictureCache.key("attack", way.attack, *decides, digest, prompt, way.seed, [str(c) for c in content])
            cache = PictureCache(self.siege.session.run.pictures / digest_of(decides[:2])[:32])
            make = partial(self._make, way, prompt, given, state)
            yield _Attempt(way.attack, victim, state, Job(cache, key, make, way.generator.name))

    def _make(self, way: _Way, prompt: str, given: Callable[[Lens], Tensor], state: int) -> RgbImage:
        features = given(self.lenses[state])
        return way.generator.draw(features, self.nulls[state], [prompt], [way.seed])[0]


def _seen_noisy(pixels: Tensor, lens: Lens) -> Tensor:
    return features_of(lens.encoder, lens.tap, pixels)


def _noisy(
    siege: Siege, show: Show, generator: Generator, lenses: tuple[Lens, Lens]
) -> Iterator[tuple[str, Tensor, Sequence[object]]]:
    """Name, noisy pixels (n, 3, side, side) of the victims drawn from, and what decides them."""
    if not siege.drawn:
        return
    params = siege.session.config.attacks
    both = (lenses[0].name, lenses[1].name)
    if "pgd" in siege.names:
        for epsilon in EPSILONS:
            yield f"pgd-{epsilon}", noisy_pixels(siege, lenses, siege.drawn, epsilon), (*both, params.pgd_steps)
    if "pgd-generator" in siege.names and params.generator_steps:
        rows = noise_through_generator(siege, show, generator, lenses)
        # The attacker's own judges, and where the faces lie, decide it too.
        judge = show.judge.fingerprint
        yield "pgd-generator", rows, (*both, params.generator_steps, judge, siege.session.config.data.landmarks)


def _ways(siege: Siege, generator: Generator, victim: Victim) -> list[_Way]:
    """Other prompts, noise and settings, which need no other photo."""
    first = _seed(siege, victim, 0)
    ways = []
    if "prompts" in siege.names:
        ways += [_Way(f"prompt: {e}", e, first, generator) for e in siege.session.config.pictures.edits]
    if "seeds" in siege.names:
        count = siege.session.config.attacks.seeds
        ways += [_Way(f"seeds-{count}", None, _seed(siege, victim, n), generator) for n in range(count)]
    if "guidance" in siege.names:
        for factor in GUIDANCE:
            driven = generator.with_settings(guidance=generator.guidance * factor)
            ways.append(_Way(f"guidance-{driven.guidance:g}", None, first, driven))
    if "scale" in siege.names:
        for factor in SCALE:
            driven = generator.with_settings(scale=generator.scale * factor)
            ways.append(_Way(f"scale-{driven.scale:g}", None, first, driven))
    return ways


def _seed(siege: Siege, victim: Victim, number: int) -> int:
    rng = random_generator(siege.session.config.seed, "attacks", "noise", victim.person, victim.photo.index)
    return int(torch.randint(2**31, (number + 1,), generator=rng)[-1])
