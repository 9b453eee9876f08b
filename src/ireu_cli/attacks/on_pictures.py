"""The attacks on pictures: what generators draw under attack."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.attacks.attempts import Attempt, attempts_of
from ireu_cli.attacks.plan import (
    AttackPlan,
    Passed,
    Victim,
    by_person,
)
from ireu_cli.attacks.success import Tried, attack_figures
from ireu_cli.drawing.jobs import DrawnPicture, run_jobs
from ireu_cli.drawing.panel import Sight
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.drawing.show import Show
from ireu_cli.measuring.galleries import Enrolment, enrolled, gallery_of, matched
from ireu_cli.report import Figure
from ireu_cli.values import STATES


def attack_pictures(plan: AttackPlan, show: Show, photos: Photos, passed: Passed) -> tuple[Figure, ...]:
    """Draw under every attack, before the edit and after it, and let every recogniser judge.

    Args:
        plan: the plan.
        show: generators and panel.
        photos: everybody's photos as the panel sees them, for enrolments and thresholds.
        passed: which attacked photos a face-match gate lets through.
    """
    attempts = [one for generator in show.generators for one in attempts_of(plan, show, generator)]
    run_jobs(plan.session, [one.job for one in attempts], f"attacks: {len(attempts)} pictures", "drawing under attack")
    sights = _look(plan, show, attempts)
    rate = plan.session.config.verify.false_match_rate
    tried: list[Tried] = []
    taps = {generator.name: generator.tap for generator in show.generators}
    for number, name in enumerate(show.panel.names):
        enrolments = _enrolments(plan, photos, number, rate)
        groups: dict[tuple[str, str, int], dict[Victim, list[Tensor]]] = {}
        for one, sight in zip(attempts, sights, strict=True):
            group = groups.setdefault((one.job.generator.name, one.attack, one.state), {})
            group.setdefault(one.victim, []).append(sight.vectors[number])
        for (drawer, attack, state), by_victim in groups.items():
            hits = {v: _hit(torch.stack(rows), enrolments[v.person]) for v, rows in by_victim.items()}
            found = by_person(list(hits), list(hits.values()))
            tried.append(Tried("attack_success", attack, STATES[state], name, drawer, found))
            through = [passed.get((name, attack, victim)) for victim in hits]
            # Noise is found for one tap; the gate only saw the noise for the configured tap.
            same = not attack.startswith("pgd") or taps[drawer] == plan.session.config.encoder.tap
            if state == 0 and same and all(value is not None for value in through):
                beaten = [hit * float(value or 0) for hit, value in zip(hits.values(), through, strict=True)]
                tried.append(Tried("gate_beaten", attack, STATES[0], name, drawer, by_person(list(hits), beaten)))
    return attack_figures(tried, plan.session.config.verify, plan.session.config.seed)


def _enrolments(plan: AttackPlan, photos: Photos, recogniser: int, rate: float) -> dict[int, Enrolment | None]:
    """The enrolment of every attacked person, built once for all attacks and generators."""
    targets, retained = photos.vectors[recogniser]
    gallery = gallery_of(retained)
    people = dict.fromkeys(victim.person for victim in plan.drawn)
    return {person: enrolled(targets[person], gallery, rate) for person in people}


def _hit(vectors: Tensor, enrolment: Enrolment | None) -> Tensor:
    """Whether any of the pictures (n, d) matches the victim: (1,). A picture without a face matches nobody."""
    if enrolment is None:
        return torch.full((1,), torch.nan, dtype=torch.float64)
    return matched(vectors, enrolment).nan_to_num(0).max().reshape(1)


def _look(plan: AttackPlan, show: Show, attempts: Sequence[Attempt]) -> list[Sight]:
    items = [DrawnPicture(one.job.key, one.attack, one.job.cache) for one in attempts]
    found = show.panel.look(plan.encodings, items, "looking at attacks")
    return [found[item.key] for item in items]
