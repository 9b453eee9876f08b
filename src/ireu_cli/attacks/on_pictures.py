"""The bypass suite in pictures: what generators draw under attack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ireu_cli.attacks.attack import Drive
from ireu_cli.attacks.driving import seed_of
from ireu_cli.attacks.siege import (
    AVERAGE,
    AVERAGED,
    Lenses,
    Passed,
    Siege,
    Victim,
    attacked_features,
    by_person,
    disguised_item,
    encode_disguised,
)
from ireu_cli.attacks.success import Tried, attack_figures
from ireu_cli.attacks.suite import attacks_of, disguises_of, photo_attacks
from ireu_cli.drawing.before_and_after import Photos, Show
from ireu_cli.drawing.jobs import DrawnPicture, Job, run_jobs
from ireu_cli.drawing.panel import Sight
from ireu_cli.drawing.shots import prompt_of
from ireu_cli.encodings import Encodings
from ireu_cli.faces.disguise import Disguise
from ireu_cli.generators.generator import Generator
from ireu_cli.manifest import digest_of
from ireu_cli.measuring.drawn_evidence import STATES
from ireu_cli.measuring.galleries import Enrolment, enrolled, gallery_of, matched
from ireu_cli.report import Figure
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.values import RgbImage


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
    items = [DrawnPicture(one.job.key, one.attack, one.job.cache) for one in attempts]
    found = show.panel.look(Encodings(siege.session, siege.reader), items, "looking at attacks")
    return [found[item.key] for item in items]


def _attempts(siege: Siege, show: Show, generator: Generator) -> Iterator[_Attempt]:
    """Every picture that a generator draws under attack, in both states."""
    lenses = siege.lenses(generator.tap)
    for lens, word in zip(lenses, STATES, strict=True):
        encode_disguised(
            siege, lens, siege.drawn, disguises_of(siege), f"attacked photos for generator {generator.name}, {word}"
        )
    easel = _Easel(siege, show.bundle.prompt, lenses, [generator.null_of(lens.encoder) for lens in lenses])
    for name, attack in photo_attacks(siege):
        for victim in siege.drawn:
            given = partial(attacked_features, siege, victim=victim, attack=attack)
            content = _content(siege, victim, attack)
            yield from easel.attempts(Drive(name, victim, generator, None, seed_of(siege, victim, 0), given, content))
    for one in attacks_of(siege):
        if one.pictures is not None:
            for drive in one.pictures(siege, show, generator, lenses):
                yield from easel.attempts(drive)


def _content(siege: Siege, victim: Victim, attack: Disguise | str) -> Sequence[object]:
    """What decides the features of an attack beside the photo itself."""
    if isinstance(attack, Disguise):
        return (disguised_item(siege, victim, attack).key,)
    return [photo.sha256 for photo in siege.everyone[victim.person][:AVERAGED]] if attack == AVERAGE else ()


@dataclass(frozen=True)
class _Easel:
    """What every picture of one generator shares."""

    siege: Siege
    base: str
    lenses: Lenses
    nulls: Sequence[Tensor]

    def attempts(self, drive: Drive) -> Iterator[_Attempt]:
        """The picture in both states."""
        prompt = prompt_of(self.base, drive.edit)
        digest = self.siege.session.run.keyed_digest(drive.victim.photo.sha256)
        content = [str(part) for part in drive.content]
        for state, lens in enumerate(self.lenses):
            decides = [lens.name, drive.generator.fingerprint, drive.generator.guidance, drive.generator.scale]
            key = PictureCache.key("attack", drive.attack, *decides, digest, prompt, drive.seed, content)
            cache = PictureCache(self.siege.session.run.pictures / digest_of(decides[:2])[:32])
            make = partial(self._make, drive, prompt, state)
            yield _Attempt(drive.attack, drive.victim, state, Job(cache, key, make, drive.generator.name))

    def _make(self, drive: Drive, prompt: str, state: int) -> RgbImage:
        features = drive.given(self.lenses[state])
        return drive.generator.draw(features, self.nulls[state], [prompt], [drive.seed])[0]
