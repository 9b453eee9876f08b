"""Noise that is searched for through a generator and its judges, and the pictures of photos with it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ireu_cli.attacks.attack import Drive
from ireu_cli.attacks.by_gradient import EPSILONS, attacked_encoder, drawn_from_pixels
from ireu_cli.attacks.perturb import epsilon_budget, perturb, towards_face
from ireu_cli.attacks.plan import AttackPlan, Lenses, face_of
from ireu_cli.drawing.show import Show
from ireu_cli.drawing.studio import Studio
from ireu_cli.generators.generator import Generator
from ireu_cli.manifest import digest_of
from ireu_cli.sharding.search import search

_SKETCH_STEPS = 4
"""The number of denoising steps through which gradients are taken."""


def noise_for_generator(plan: AttackPlan, show: Show, generator: Generator, lenses: Lenses) -> Iterator[Drive]:
    """A generator's pictures of photos with noise that was found through that generator."""
    params = plan.session.config.attacks
    if plan.drawn and params.generator_steps:
        pixels = noise_through_generator(plan, show, generator, lenses)
        # The attacker's own judges and the positions of the faces decide it too.
        places = plan.session.config.data.landmarks
        content = (lenses.original.name, lenses.edited.name, params.generator_steps, show.judge.fingerprint, places)
        yield from drawn_from_pixels("pgd-generator", pixels, plan, generator, content)


def noise_through_generator(plan: AttackPlan, show: Show, generator: Generator, lenses: Lenses) -> Tensor:
    """Photos with noise of at most 8 / 255 that makes a generator draw the person: (n, 3, side, side).

    Only victims whose photos are drawn are included.

    The attacker uses the embedded recogniser to find the noise, so that recogniser's judgement of the result says
    least.
    """
    before, after = lenses
    encoder, weight = attacked_encoder(after.encoder)
    studio = Studio(generator, show.judge, show.bundle.prompt, generator.null_of(after.encoder))
    budget, low, high = epsilon_budget(EPSILONS[-1], *encoder.scaling)
    steps = plan.session.config.attacks.generator_steps

    def find(places: list[int]) -> dict[str, Tensor]:
        victim = plan.drawn[places[0]]
        rng = plan.session.random("attacks", "sketch", victim.person, victim.photo.index)
        face = studio.face(face_of(plan, victim.photo))
        likeness = studio.likeness(face, [int(torch.randint(2**31, (1,), generator=rng))], _SKETCH_STEPS)

        def drawn_from(pixels: Tensor) -> tuple[Tensor, Tensor]:
            return likeness(encoder.read(encoder.model, pixels.to(weight.dtype), after.tap))

        clean = before.pixels([victim.photo]).to(weight.device)
        noisy = perturb(clean, towards_face(drawn_from), budget, low, high, steps).cpu()
        advance(1, generator.name)
        return {"pixels": noisy}

    photos = [victim.photo.sha256 for victim in plan.drawn]
    name = ["generator", studio.fingerprint, before.name, after.name, steps, plan.session.config.data.landmarks, photos]
    with plan.session.timed("attack"), plan.session.talk.progress("noise through", len(plan.drawn)) as advance:
        found = search(plan.session.executor, lambda: digest_of(name), len(plan.drawn), 1, find)
    return torch.cat([part["pixels"] for part in found])
