"""Relearning: how little fine-tuning of the edited encoder brings a removed person back.

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
"""Most photos in one step."""


@dataclass(frozen=True)
class Relearned:
    """The probes' features after so many steps: float32 (n, …, d), on the CPU."""

    step: int
    features: Tensor


def report_steps(steps: int) -> tuple[int, ...]:
    """When to look: 0, 5, 10, 20, 40 and so on, and `steps` itself, ascending."""
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
    """Fine-tune a float32 copy of the edited encoder on a few photos; the encoder handed in keeps every bit.

    A strong attacker: holds the edited weights; knows exactly what the original encoder said of the photos, as who has
    cached embeddings does, where an attacker without them can only guess a label; may move every weight that reaches
    the tap, at full precision; and need not keep anyone else's features, which an edit must. What is judged are
    photos that were not trained on, so it is the person that comes back and not a photo. Who still has the original
    encoder needs no attack. The rate is one, not the best of many.

    The loss is the mean squared distance between features and `wanted` over the mean squared norm of `wanted`; Adam.

    Args:
        encoder: the edited one, in any dtype, on the device that trains.
        tap: the tensor that the generator reads.
        photos: float (n, 3, side, side), normalised, of the person; of more than 8, each step draws 8.
        wanted: float (n, …, d), the original encoder's features of them.
        probes: float (m, 3, side, side), other photos of the person.
        steps: how many optimiser steps.
        rate: Adam's learning rate.
        report_at: steps after which to look at the probes, beside step 0; see `report_steps`.
        seed: decides every draw.
        progress: called with the number of each step done.

    Yields:
        The probes' features before training and after each step of `report_at`. Ends early, without a word, when the
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


# None of these holds a mode of torch open across a `yield`, where it would leak into the caller.


def _trainable_copy(encoder: Trainable, tap: Tap) -> tuple[Any, list[Tensor]]:
    """The model once more, in float32, and those of its weights that can change the tap."""
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
    """One step; False, and no step, where the loss is not finite."""
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
