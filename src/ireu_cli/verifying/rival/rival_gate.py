"""Measure the face-match gate on the run's own photos, unchanged and under attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.attacks.by_gradient import EPSILONS, noisy_pixels, picture_of
from ireu_cli.attacks.plan import AttackPlan, Passed, Victim, by_person, disguised_item
from ireu_cli.attacks.success import Tried, attack_figures
from ireu_cli.attacks.suite import photo_attacks
from ireu_cli.drawing.panel import Panel, Sight
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.encodings.lens import SteadyPhoto, photo_key
from ireu_cli.encodings.loop import Item
from ireu_cli.faces.disguise import Disguise
from ireu_cli.faces.read import PhotoReader
from ireu_cli.report import NO_ATTACK, Figure
from ireu_cli.session import Session
from ireu_cli.values import Photo, RgbImage
from ireu_cli.verifying.rival.rival_figures import Gate, gate_figures, make_gate


def measure_gate(
    session: Session, panel: Panel, photos: Photos, used: Callable[[Photo], bool]
) -> tuple[tuple[Figure, ...], tuple[Gate, ...]]:
    """The figures of the gates, and the gates themselves: one for each recogniser that finds retained people.

    Args:
        session: the run.
        panel: the recognisers.
        photos: everybody's photos as the panel sees them.
        used: whether unlearning used a photo.
    """
    figures: list[Figure] = []
    gates: list[Gate] = []
    params = session.config.verify
    for number, net in enumerate(panel.recognisers):
        targets, retained = photos.people.targets.photos, photos.vectors[number].retained
        seen, unseen = (
            [photos.seen([p for p in person if used(p) is wanted], number, net.width) for person in targets]
            for wanted in (True, False)
        )
        if any(len(rows) for rows in retained):
            figures += gate_figures(net.name, seen, unseen, retained, params, session.config.seed)
            enrolled = [rows[torch.isfinite(rows).all(1)] for rows in seen]
            gates.append(make_gate(net.name, enrolled, retained, params.false_match_rate))
    return tuple(figures), tuple(gates)


def evade_gate(plan: AttackPlan, panel: Panel, gates: Sequence[Gate]) -> tuple[tuple[Figure, ...], Passed]:
    """Show attacked photos to the gates.

    Returns:
        The figures of how many get through, and which photos do.
    """
    sights = _look(plan, panel)
    passed: Passed = {}
    tried = []
    for gate in gates:
        number = panel.names.index(gate.recogniser)
        for attack in dict.fromkeys(attack for attack, _ in sights):
            values: list[Tensor] = []
            for victim in plan.victims:
                vector = sights[attack, victim].vectors[number][None]
                values.append(1 - gate.refuses(vector, victim.person))
                passed[gate.recogniser, attack, victim] = float(values[-1])
            found = by_person(plan.victims, values)
            tried.append(Tried("gate_evaded", attack, "original", gate.recogniser, None, found))
    return attack_figures(tried, plan.session.config.verify, plan.session.config.seed), passed


def _look(plan: AttackPlan, panel: Panel) -> dict[tuple[str, Victim], Sight]:
    """What the panel sees in every attacked photo; attacks that do not change the photo are left out.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    items: dict[tuple[str, Victim], Item] = {}
    for name, attack in photo_attacks(plan):
        for victim in plan.victims:
            if isinstance(attack, Disguise):
                items[name, victim] = disguised_item(plan, victim, attack)
            elif name == NO_ATTACK:
                label = plan.session.name_of(victim.photo)
                items[name, victim] = SteadyPhoto(photo_key(plan.reader, victim.photo), label, victim.photo)
    if "pgd" in plan.names:
        for epsilon in EPSILONS:
            items |= _noisy(plan, epsilon)
    found = panel.look(plan.encodings, list(items.values()), "showing attacks to the gate")
    return {place: found[item.key] for place, item in items.items()}


@dataclass(frozen=True, slots=True)
class MadePicture(Item):
    """A picture that is in memory."""

    picture: RgbImage

    def load(self, _reader: PhotoReader, /) -> RgbImage:
        """See `Item`."""
        return self.picture


def _noisy(plan: AttackPlan, epsilon: int) -> dict[tuple[str, Victim], Item]:
    lenses = plan.lenses()
    pixels = noisy_pixels(plan, lenses, plan.victims, epsilon)
    steps = plan.session.config.attacks.pgd_steps
    found: dict[tuple[str, Victim], Item] = {}
    for place, victim in enumerate(plan.victims):
        name = f"pgd-{epsilon}"
        key = f"{lenses.original.name}-{lenses.edited.name}-{victim.photo.sha256}-{name}-{steps}"
        label = f"{plan.session.name_of(victim.photo)}, {name}"
        found[name, victim] = MadePicture(key, label, picture_of(plan.encoders.edited, pixels[place]))
    return found
