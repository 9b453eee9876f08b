"""Relearning: test how much fine-tuning of the edited encoder brings a removed person back.

After Hu et al. 2024 (arXiv 2406.13356), who undo unlearning by fine-tuning on little related data.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import Trainable
from ireu_cli.params import Tap
from ireu_cli.support.runtime import generator

BATCH = 8
"""The most photos in one step."""


@dataclass(frozen=True)
class Relearned:
    """The probes' features after a number of steps: float32 (n, …, d), on the CPU."""

    step: int
    features: Tensor


def report_steps(steps: int) -> tuple[int, ...]:
    """The steps after which to look: 0, 5, 10, 20, 40 and so on, and `steps` itself, ascending."""
    marks, mark = {0, steps}, 5
    while mark < steps:
        marks.add(mark)
        mark *= 2
    return tuple(sorted(marks))


def relearn(
    encoder: Trainable,
    tap: Tap,
    photos: Tensor,
    wanted: Tensor,
    probes: Tensor,
    *,
    steps: int,
    rate: float,
    report_at: Sequence[int],
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Relearned]:
    """Fine-tune a float32 copy of the edited encoder on a few photos; the encoder passed in keeps every bit.

    This is a strong attacker. They have the edited weights. They know the original encoder's exact features of the
    photos, for example from cached embeddings; other attackers could only guess a label. They may change every weight
    that reaches the tap, at full precision. And unlike an edit, they need not preserve anyone else's features. Only
    photos that were not trained on are judged, so a success means that the person comes back, and not just a photo. An
    attacker who still has the original encoder needs no attack. There is one learning rate, not the best of many.

    The loss is the mean squared distance between features and `wanted` over the mean squared norm of `wanted`; Adam.

    Args:
        encoder: the edited one, in any dtype, on the device that trains.
        tap: the tensor that the generator reads.
        photos: float (n, 3, side, side), normalised, photos of the person; if there are more than 8, each step draws 8.
        wanted: float (n, …, d), the original encoder's features of them.
        probes: float (m, 3, side, side), other photos of the person.
        steps: number of optimiser steps.
        rate: Adam's learning rate.
        report_at: steps after which to look at the probes, besides step 0; see `report_steps`.
        seed: decides every draw.
        progress: called with the number of each step done.

    Yields:
        The probes' features before training and after each step of `report_at`. Ends early, without an error, if the
        loss or the features are not finite.
    """
    model, weights = _trainable_copy(encoder, tap)
    optimiser = torch.optim.Adam(weights, lr=rate, fused=True)

    def read(pixels: Tensor) -> Tensor:
        return encoder.read(model, pixels.to(weights[0]), tap)

    marks = set(report_at) | {0}
    for step in range(steps + 1):
        if step:
            chosen = _draw(len(photos), seed, step)
            if not _train(read, optimiser, photos, wanted, chosen):
                return
            if progress:
                progress(step)
        if step in marks:
            features = _features(read, probes)
            if not bool(torch.isfinite(features).all()):
                return
            yield Relearned(step, features)


# None of these keeps a torch mode open across a `yield`, because it would leak into the caller.


def _trainable_copy(encoder: Trainable, tap: Tap) -> tuple[Any, list[Tensor]]:
    """A float32 copy of the model, and its weights that can change the tap."""
    with torch.inference_mode(False):
        model = copy.deepcopy(encoder.model).float().eval().requires_grad_(False)
        named = dict(model.named_parameters())
        weights = [named[name].requires_grad_() for name in encoder.weights_for("all", tap) if name in named]
    return model, weights


def _draw(count: int, seed: int, step: int) -> Tensor:
    if count <= BATCH:
        return torch.arange(count)
    return torch.randperm(count, generator=generator(seed, "relearn", step))[:BATCH]


def _train(
    read: Callable[[Tensor], Tensor], optimiser: torch.optim.Optimizer, photos: Tensor, wanted: Tensor, chosen: Tensor
) -> bool:
    """Make one step; False without a step if the loss is not finite."""
    with torch.inference_mode(False), torch.enable_grad():
        pixels, goal = (part[chosen.to(part.device)] for part in (photos, wanted))
        found = read(pixels)
        scale = wanted.to(found).square().mean().clamp_min(1e-12)
        loss = (found - goal.to(found)).square().mean() / scale
        if not bool(torch.isfinite(loss)):
            return False
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return True


def _features(read: Callable[[Tensor], Tensor], probes: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return torch.cat([read(part).cpu() for part in torch.split(probes, BATCH)])
