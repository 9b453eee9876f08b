"""The paper's unlearning: regress the encoder's output for target photos to a virtual identity, and keep it for others.

L = λ₁ ‖e_u(x₋) − z̃‖₂ + ‖e_u(x₊) − e(x₊)‖₂, z̃ = z₋ ± α (M ⊙ Δz), Adam. `global` is the same with M = 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ireu_cli.encoders.family import Trainable
from ireu_cli.errors import DivergedError, PhotoError
from ireu_cli.maths.losses import mean_distance, virtual_identity
from ireu_cli.maths.masks import top_mask
from ireu_cli.params import Tap, UnlearnParams
from ireu_cli.support.runtime import generator
from ireu_cli.values import Json, WeightDelta

STEPS_FOR_ONE = 1000
STEPS_A_PERSON = 2400
"""The paper's 1,000 steps for one person, 12,000 for five."""

LEARNING_RATE, FORGET_WEIGHT, BATCH = 1e-5, 0.1, 1
"""The paper's values, which `auto` uses."""

_WINDOW = 50
"""The number of steps over which a loss is averaged before it counts as diverged; single photos differ a lot."""

RetainBatch = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""A function from positions of retained photos to their pixels (n, 3, side, side) and original features (n, …, d)."""


@dataclass(frozen=True)
class ForgetSet:
    """The targets' photos: `pixels` (n, 3, side, side), `features` z₋ and `shifts` Δz (n, …, d), `people` numbers."""

    pixels: Tensor
    features: Tensor
    shifts: Tensor
    people: tuple[int, ...]


@dataclass(frozen=True)
class RetainSet:
    """Other people's photos, read when they are sampled, and the two null images, always in memory."""

    count: int
    batch: RetainBatch
    null_pixels: Tensor
    null_features: Tensor


@dataclass
class TrainState:
    """Everything that a resumed run needs to end with the same bytes: draws depend only on the seed and the step."""

    step: int
    weights: dict[str, Tensor]
    first_moments: dict[str, Tensor] = field(default_factory=dict)
    second_moments: dict[str, Tensor] = field(default_factory=dict)
    losses: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    looks: list[tuple[int, float]] = field(default_factory=list)
    """The results of looks at held-out photos: the step, and the share of their way that is left."""

    def tensors(self) -> dict[str, Tensor]:
        """Flatten for a checkpoint; `from_tensors` is the inverse."""
        groups = {"weight": self.weights, "first": self.first_moments, "second": self.second_moments}
        flat = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        looks = torch.tensor(self.looks, dtype=torch.float64).reshape(-1, 2)
        return flat | {"losses": self.losses[: self.step].clone(), "looks": looks}

    @classmethod
    def from_tensors(cls, step: int, tensors: dict[str, Tensor]) -> "TrainState":
        """Rebuild the state from a checkpoint's tensors."""
        groups: dict[str, dict[str, Tensor]] = {"weight": {}, "first": {}, "second": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            if rest:
                groups[group][rest] = tensor
        looks = [(int(at), share) for at, share in tensors["looks"].tolist()]
        return cls(step, groups["weight"], groups["first"], groups["second"], tensors["losses"], looks)


def planned_steps(params: UnlearnParams, people: int) -> int:
    """Number of optimiser steps; `auto` follows the paper."""
    if params.steps != "auto":
        return params.steps
    return STEPS_FOR_ONE if people == 1 else STEPS_A_PERSON * people


def photo_masks(forget: ForgetSet, mask: Tensor, params: UnlearnParams) -> Tensor:
    """M for every target photo: bool (n, d).

    Args:
        forget: the targets.
        mask: bool (d,), the located mask; its size is the size of every mask made here.
        params: method and scope.
    """
    if params.method == "global":
        return torch.ones(len(forget.people), len(mask), dtype=torch.bool)
    if params.mask_scope == "global":
        return mask.expand(len(forget.people), -1)
    size = forget.shifts.abs().reshape(len(forget.people), -1, len(mask)).mean(1)
    if params.mask_scope == "person":
        people = torch.tensor(forget.people)
        size = torch.stack([size[people == person].mean(0) for person in forget.people])
    fraction = float(mask.sum()) / len(mask)
    return torch.stack([top_mask(row, fraction) for row in size])


def unlearn(
    encoder: Trainable,
    tap: Tap,
    names: Sequence[str],
    forget: ForgetSet,
    retain: RetainSet,
    mask: Tensor,
    params: UnlearnParams,
    seed: int,
    start: TrainState | None = None,
    on_step: Callable[[TrainState], None] | None = None,
    network: nn.Module | None = None,
    enough: Callable[[TrainState], bool] | None = None,
) -> tuple[WeightDelta, dict[str, Json]]:
    """Train the named weights; the encoder passed in keeps every bit, even after an error.

    Args:
        encoder: float32, on the device that trains.
        tap: the tensor that is regressed.
        names: weights that may change.
        forget: target photos.
        retain: other people's photos and the null images.
        mask: bool (d,).
        params: all settings.
        seed: decides every draw.
        start: a checkpoint to continue from.
        on_step: called after each step with the live state; may copy it, show it, or raise to stop.
        network: maps the sets' pixels to the tap, with the encoder's model as its `model`; None: the encoder.
        enough: called before each step; says whether to end.

    Returns:
        The delta, and entries for the record.

    Raises:
        PhotoError: the shift is zero, so there is no direction to move in.
        DivergedError: a loss is not finite or leaves its range.
    """
    device = next(encoder.model.parameters()).device
    targets = _virtual_identities(forget, mask, params)
    reach = float(mean_distance(forget.features, targets))
    if not reach > 0:
        raise PhotoError(
            "The swapped photos have the features of the originals",
            "Check that the landmarks fit the photos, or use another swapper",
        )
    total = planned_steps(params, len(set(forget.people)))
    state = start or _fresh(encoder, names)
    if len(state.losses) < total:
        state.losses = torch.cat([state.losses, torch.zeros(total - len(state.losses), 2)])
    weights = {name: tensor.to(device).requires_grad_(True) for name, tensor in state.weights.items()}
    rate = LEARNING_RATE if params.learning_rate == "auto" else params.learning_rate
    batch = BATCH if params.batch == "auto" else params.batch
    share = FORGET_WEIGHT if params.forget_weight == "auto" else params.forget_weight
    optimiser = _adam(weights, state, rate)
    network = network or _Tap(encoder, tap)
    limits = torch.tensor([reach, float(mean_distance(retain.null_features, torch.zeros_like(retain.null_features)))])
    state.weights = weights
    # Ask before a step and not after it, so that a run that resumes from any checkpoint asks the same.
    while state.step < total and not (enough and enough(state)):
        chosen = _forget_draw(len(forget.people), batch, seed, state.step)
        pixels, features = _retain_draw(retain, batch, params.null_share, seed, state.step)
        both = torch.cat([forget.pixels[chosen], pixels]).to(device)
        output = torch.func.functional_call(network, {f"model.{k}": v for k, v in weights.items()}, (both,))
        forget_loss = mean_distance(output[: len(chosen)], targets[chosen].to(device))
        retain_loss = mean_distance(output[len(chosen) :], features.to(device))
        optimiser.zero_grad()
        (share * forget_loss + retain_loss).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        state.losses[state.step] = torch.stack([forget_loss, retain_loss]).detach().cpu()
        state.step += 1
        _check(state, limits, params.divergence_factor)
        state.weights = weights
        if on_step:
            on_step(state)
    original = encoder.model.state_dict()
    delta = {name: (weights[name].detach() - original[name]).cpu() for name in sorted(weights)}
    return WeightDelta(delta), _summary(state, delta, original, reach)


class _Tap(nn.Module):
    """The encoder as one function from pixels to a tap, for `functional_call`."""

    def __init__(self, encoder: Trainable, tap: Tap) -> None:
        super().__init__()
        self.model = encoder.model
        self._read = encoder.read
        self._tap = tap

    def forward(self, pixels: Tensor) -> Tensor:
        return self._read(self.model, pixels, self._tap)


def _virtual_identities(forget: ForgetSet, mask: Tensor, params: UnlearnParams) -> Tensor:
    masks = photo_masks(forget, mask, params)
    sign = 1.0 if params.direction == "away" else -1.0
    return virtual_identity(forget.features, forget.shifts, masks, params.alpha, sign)


def _fresh(encoder: Trainable, names: Sequence[str]) -> TrainState:
    state = encoder.model.state_dict()
    return TrainState(0, {name: state[name].detach().clone() for name in sorted(names)})


def _adam(weights: dict[str, Tensor], state: TrainState, learning_rate: float) -> torch.optim.Adam:
    optimiser = torch.optim.Adam(list(weights.values()), lr=learning_rate, fused=True)
    for name, weight in weights.items():
        moments = [state.first_moments.get(name), state.second_moments.get(name)]
        first, second = (torch.zeros_like(weight) if m is None else m.to(weight.device) for m in moments)
        state.first_moments[name], state.second_moments[name] = first, second
        step = torch.tensor(float(state.step), device=weight.device)
        optimiser.state[weight] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    return optimiser


def _forget_draw(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Sample all photos in a new order each round."""
    chosen = []
    for position in range(step * batch, (step + 1) * batch):
        order = torch.randperm(count, generator=generator(seed, "forget", position // count))
        chosen.append(int(order[position % count]))
    return chosen


def _retain_draw(retain: RetainSet, batch: int, null_share: float, seed: int, step: int) -> tuple[Tensor, Tensor]:
    rng = generator(seed, "retain", step)
    null = torch.rand(batch, generator=rng) < null_share
    photos = torch.randint(retain.count, (batch,), generator=rng)[~null].tolist()
    nulls = torch.randint(len(retain.null_pixels), (batch,), generator=rng)[null]
    drawn = [(retain.null_pixels[nulls], retain.null_features[nulls])] if len(nulls) else []
    drawn += [retain.batch(photos)] if photos else []
    return torch.cat([pixels for pixels, _ in drawn]), torch.cat([features for _, features in drawn])


def _check(state: TrainState, limits: Tensor, factor: float) -> None:
    """Stop a run whose result could not be used.

    The forget loss starts at `limits[0]` and should fall. A retain loss of `limits[1]`, the norm of a feature vector,
    means that nothing of the original features is left.
    """
    recent = state.losses[max(0, state.step - _WINDOW) : state.step]
    remedy = "Lower unlearn.learning_rate or unlearn.alpha"
    if not math.isfinite(float(recent[-1].sum())):
        raise DivergedError(f"The loss is not a finite number at step {state.step}", remedy)
    over = recent.mean(0) > factor * limits
    if len(recent) == _WINDOW and bool(over.any()):
        which = "forget" if bool(over[0]) else "retain"
        raise DivergedError(f"The {which} loss left its range at step {state.step}", remedy)


def _summary(state: TrainState, delta: dict[str, Tensor], original: dict[str, Any], reach: float) -> dict[str, Json]:
    losses = state.losses[: state.step]
    marks = torch.linspace(0, len(losses) - 1, min(len(losses), 21)).round().long()
    square = sum(float(change.double().square().sum()) for change in delta.values())
    base = sum(float(original[name].double().square().sum()) for name in delta)
    return {
        "steps": state.step,
        "forget_distance_at_start": reach,
        "forget_loss_last": float(losses[-_WINDOW:, 0].mean()),
        "retain_loss_last": float(losses[-_WINDOW:, 1].mean()),
        "loss_curve": [[int(mark) + 1, *(float(x) for x in losses[mark])] for mark in marks],
        "relative_weight_change": math.sqrt(square / base) if base > 0 else None,
        "tensors_changed": len(delta),
        "held_out": [list(look) for look in state.looks],
    }
