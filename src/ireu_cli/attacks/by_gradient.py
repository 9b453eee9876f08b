"""Attacks by somebody who has the weights: noise on the photo, found by gradient."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ireu_cli.attacks.attack import Drive, seed_of
from ireu_cli.attacks.perturb import PhotoLoss, epsilon_budget, perturb, towards_features
from ireu_cli.attacks.plan import AttackPlan, Lenses, Victim, by_person
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.drawing.show import Show
from ireu_cli.encoders.family import ImageEncoder, Trainable, need_blocks, need_gradients
from ireu_cli.encoders.mlp_site import detectors_reading
from ireu_cli.encodings.lens import Lens, flatten_tokens
from ireu_cli.generators.generator import Generator
from ireu_cli.manifest import digest_of
from ireu_cli.params import Tap
from ireu_cli.report import State
from ireu_cli.sharding.search import search
from ireu_cli.values import STATES, Ledger, PooledLedger, RgbImage

EPSILONS = (2, 4, 8)
"""The largest change of a pixel, in steps of 1/255."""


def noise_on_features(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """Noise that brings the edited encoder's features of a photo towards the original's."""
    for epsilon in EPSILONS:
        pixels = noisy_pixels(plan, lenses, plan.victims, epsilon)
        yield from _matched(f"pgd-{epsilon}", pixels, plan, lenses, matcher)


def noise_on_detectors(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """Noise that brings all detectors' scores to their thresholds, and features towards the original's.

    The attacker knows which units of the edited encoder are detectors. Their scores give a direction when features do
    not, because an open detector's response is flat. If all detectors are shut, the encoder acts like the original one.
    The attack is skipped if the edit has no detectors with gradients.
    """
    ledger = None if plan.ledger is None else plan.ledger.detectors
    if ledger is None:
        return
    loss = partial(_towards_features_past, lenses.edited, ledger)
    for epsilon in EPSILONS:
        pixels = _search(plan, lenses, plan.victims, epsilon, f"noise of {epsilon}/255, detectors", loss)
        yield from _matched(f"pgd-detector-{epsilon}", pixels, plan, lenses, matcher)


def _matched(attack: str, pixels: Tensor, plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """Whether each encoder's features (n, …, d) of the victims' noisy photos show the victims."""
    for lens, state in zip(lenses, STATES, strict=True):
        yield tried_on(attack, state, features_of(lens.encoder, lens.tap, pixels), plan, matcher)


def tried_on(attack: str, state: State, rows: Tensor, plan: AttackPlan, matcher: FeatureMatcher) -> Tried:
    """Whether features (n, …, d) of the victims' photos under an attack show the victims."""
    hits = [
        matcher.match(flatten_tokens(row[None]), victim.person) for row, victim in zip(rows, plan.victims, strict=True)
    ]
    return Tried("attack_success", attack, state, matcher.measure, None, by_person(plan.victims, hits))


def noise_in_pictures(plan: AttackPlan, _show: Show, generator: Generator, lenses: Lenses) -> Iterator[Drive]:
    """A generator's pictures of photos with the noise of `noise_on_features`."""
    for epsilon in EPSILONS if plan.drawn else ():
        pixels = noisy_pixels(plan, lenses, plan.drawn, epsilon)
        content = (lenses.original.name, lenses.edited.name, plan.session.config.attacks.pgd_steps)
        yield from drawn_from_pixels(f"pgd-{epsilon}", pixels, plan, generator, content)


def drawn_from_pixels(
    attack: str, pixels: Tensor, plan: AttackPlan, generator: Generator, content: Sequence[object]
) -> Iterator[Drive]:
    """Pictures of photos that were searched for; `content` says beside the photo what decides them."""
    for place, victim in enumerate(plan.drawn):
        given = partial(_seen, pixels[place : place + 1])
        yield Drive(attack, victim, generator, None, seed_of(plan, victim, 0), given, content)


def _seen(pixels: Tensor, lens: Lens) -> Tensor:
    return features_of(lens.encoder, lens.tap, pixels)


def _towards_features_past(lens: Lens, ledger: Ledger | PooledLedger, wanted: Tensor) -> PhotoLoss:
    """`towards_features`, plus how far the highest detector's score lies above its threshold."""
    encoder = need_blocks(lens.encoder, "An attack on detectors")
    model = encoder.model
    weight = next(model.parameters())
    rows, biases = (part.to(weight.device) for part in ledger.scores)

    near = towards_features(lambda pixels: encoder.read(model, pixels.to(weight.dtype), lens.tap), wanted)

    def of(pixels: Tensor) -> Tensor:
        with detectors_reading(model, ledger.block, pooled=ledger.pooled, gradients=True) as read:
            away = near(pixels)
        return away + (read().float() @ rows.T + biases).amax(1).clamp_min(0)

    return of


def noisy_pixels(plan: AttackPlan, lenses: Lenses, victims: Sequence[Victim], epsilon: int) -> Tensor:
    """The victims' photos with noise of at most epsilon / 255, prepared for the encoder: (n, 3, side, side)."""
    for (tap, strength, searched), found in plan.noise.items():
        # Pictures are drawn from some of the photos that were attacked on features, so their noise is known.
        if (tap, strength) == (lenses.original.tap, epsilon) and set(victims) <= set(searched):
            places = {victim: place for place, victim in enumerate(searched)}
            return found[[places[victim] for victim in victims]]
    after = lenses.edited
    encoder, weight = attacked_encoder(after.encoder)

    def loss(wanted: Tensor) -> PhotoLoss:
        return towards_features(lambda pixels: encoder.read(encoder.model, pixels.to(weight.dtype), after.tap), wanted)

    found = _search(plan, lenses, victims, epsilon, f"noise of {epsilon}/255", loss)
    plan.noise[lenses.original.tap, epsilon, tuple(victims)] = found
    return found


def _search(
    plan: AttackPlan,
    lenses: Lenses,
    victims: Sequence[Victim],
    epsilon: int,
    label: str,
    loss: Callable[[Tensor], PhotoLoss],
) -> Tensor:
    """The victims' photos with noise of at most epsilon / 255: (n, 3, side, side).

    `loss` turns the original encoder's features (n, …, d) of some photos into the function that the attacker minimises.
    """
    before, after = lenses
    encoder, weight = attacked_encoder(after.encoder)
    budget, low, high = epsilon_budget(epsilon, *encoder.scaling)
    steps = plan.session.config.attacks.pgd_steps

    def find(places: list[int]) -> dict[str, Tensor]:
        photos = [victims[place].photo for place in places]
        of = loss(before.features(photos).to(weight.device))
        clean = before.pixels(photos).to(weight.device)
        noisy = perturb(clean, of, budget, low, high, steps).cpu()
        advance(len(photos), "")
        return {"pixels": noisy}

    name = [label, before.name, after.name, steps, [victim.photo.sha256 for victim in victims]]
    with plan.session.timed("attack"), plan.session.talk.progress(label, len(victims)) as advance:
        found = search(
            plan.session.executor, lambda: digest_of(name), len(victims), plan.session.config.run.batch_size, find
        )
    return torch.cat([part["pixels"] for part in found])


def attacked_encoder(encoder: ImageEncoder) -> tuple[Trainable, Tensor]:
    """The encoder that gradients go through, and one of its weights; a plan plans such attacks where there are any."""
    found = need_gradients(encoder, "An attack with gradients")
    return found, next(found.model.parameters())


def features_of(encoder: ImageEncoder, tap: Tap, pixels: Tensor) -> Tensor:
    """Features float32 (n, …, d), on the CPU, of pixels (n, 3, side, side), computed in small pieces."""
    return torch.cat([encoder.encode(part, tap) for part in torch.split(pixels, 16)])


def picture_of(encoder: ImageEncoder, pixels: Tensor) -> RgbImage:
    """Turn preprocessed pixels (3, side, side) into a picture, for the judges."""
    found, _ = attacked_encoder(encoder)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in found.scaling)
    picture: RgbImage = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return picture
