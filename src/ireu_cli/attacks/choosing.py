"""Plan the attacks: which photos, and which attacks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ireu_cli.attacks.plan import AttackPlan, Victim, disguised_item, face_of
from ireu_cli.attacks.suite import attacks_of, chosen, needing_gradients
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.faces.disguise import Disguise
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.photos import among
from ireu_cli.session import Session
from ireu_cli.values import AnyLedger, Pair, Photo


def choose_attacks(
    session: Session,
    delta: Manifest,
    encoders: Pair[ImageEncoder],
    targets: Sequence[Sequence[Photo]],
    others: Sequence[Photo],
    reader: PhotoReader,
    ledger: AnyLedger | None = None,
) -> AttackPlan | None:
    """Choose photos and attacks; None if there is nothing to try.

    Args:
        session: the run.
        delta: the record of unlearning, which says which photos were used.
        encoders: the original and the edited one.
        targets: usable photos of each target.
        others: usable photos of retained people.
        reader: reads the photos.
        ledger: the detectors of the edit, if it has any.

    Raises:
        ConfigError: `attacks.suite` names an attack that does not exist.
    """
    params = session.config.attacks
    names = chosen(params.suite)
    if not encoders.edited.gives_gradients and (lost := names & needing_gradients()):
        session.talk.note(
            f"these attacks are not tried, because {encoders.edited.noun} gives no gradients: {', '.join(sorted(lost))}"
        )
        names -= lost
    if not names or not others:
        return None
    used = among(session, delta.targets)
    victims = []
    for person, photos in enumerate(targets[: params.people]):
        ordered = sorted(photos, key=used)
        for place, photo in enumerate(ordered[: params.photos]):
            rng = session.random("attacks", person, place)
            other = others[int(torch.randint(len(others), (1,), generator=rng))]
            victims.append(Victim(person, photo, ordered[(place + 1) % len(ordered)], other))
    drawn = [v for n, v in enumerate(victims) if sum(w.person == v.person for w in victims[:n]) < params.drawn]
    everyone = tuple(tuple(sorted(photos, key=used)) for photos in targets)
    plan = AttackPlan(session, encoders, reader, tuple(victims), tuple(drawn), everyone, tuple(others), names, ledger)
    pairs = [(one.name, one.photo) for one in attacks_of(plan)]
    if idle := sorted(name for name, photo in pairs if isinstance(photo, Disguise) and _is_idle(plan, photo)):
        session.talk.note(f"these attacks are not tried, because they do not change these photos: {', '.join(idle)}")
    return replace(plan, names=names - set(idle))


def _is_idle(plan: AttackPlan, disguise: Disguise) -> bool:
    """Whether a front-end prepares every victim's photo like the encoder's preprocessing, because all are square."""
    return disguise.family == "front-end" and all(
        np.array_equal(disguised_item(plan, victim, disguise).load(plan.reader), face_of(plan, victim.photo).image)
        for victim in plan.victims
    )
