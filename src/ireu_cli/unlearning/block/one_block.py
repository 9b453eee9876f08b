"""Unlearn by training one block on its inputs, which are kept from one pass of the photos through the earlier blocks.

The losses are the paper's. Four things differ: the aim is the average of people instead of a swapped face, changed
copies of the photos are trained on too, some photos are held out to say when to stop, and a step only computes one
block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.errors import ConfigError
from ireu_cli.params import Tap, UnlearnParams
from ireu_cli.unlearning.ireu.published import ForgetSet, RetainSet, TrainState, unlearn
from ireu_cli.values import Json, WeightDelta

LEARNING_RATE, FORGET_WEIGHT, BATCH, STEPS = 3e-4, 1.0, 8, 1000
"""The values of `auto`, chosen on the encoder of portrait-mini."""
LOOK_EVERY, PATIENCE = 25, 4
"""The steps between looks at held-out photos, and the number of looks without progress that end the training.
"""
PROGRESS = 0.99
"""A distance from the aim counts as progress if it is below this share of the shortest one so far."""


@dataclass(frozen=True)
class States:
    """Some photos: their inputs of the block, float32 (n, tokens, d), and the numbers of their people."""

    inputs: Tensor
    people: tuple[int, ...]


@dataclass(frozen=True)
class Entering:
    """The inputs of a block for everybody's photos.

    `given`: the targets' photos and changed copies of them. `held`: photos of the targets that say when to stop; may be
    empty. `others` (m, tokens, d): retained photos. `nulls` (2, tokens, d): the null images.
    """

    given: States
    held: States
    others: Tensor
    nulls: Tensor


class Tail(nn.Module):
    """The part of the encoder from the input of a block to a tap."""

    def __init__(self, encoder: HasBlocks, block: int, tap: Tap) -> None:
        super().__init__()
        self.model = encoder.model
        self._encoder = encoder
        self._block = block
        self._tap = tap

    def forward(self, states: Tensor) -> Tensor:
        """Turn states (n, tokens, d) into features (n, …, k)."""
        layers = self._encoder.layers(self.model)
        end = len(layers) - 1 if self._tap == "penultimate" else len(layers)
        for layer in layers[self._block : end]:
            states = self._encoder.through(layer, states)
        return self._encoder.behind_blocks(self.model, states, self._tap)


def block_for(blocks: int, tap: Tap) -> int:
    """The last block that reaches every token of the tap.

    Raises:
        ConfigError: there is none before it.
    """
    block = blocks - 2 if tap == "penultimate" else blocks - 1
    if block < 0:
        raise ConfigError(f"An encoder of {blocks} blocks has none before {tap}", "Use another tap or method")
    return block


def unlearn_block(
    encoder: HasBlocks,
    tap: Tap,
    block: int,
    entering: Entering,
    mask: Tensor,
    gain: float,
    params: UnlearnParams,
    seed: int,
    start: TrainState | None = None,
    on_step: Callable[[TrainState], None] | None = None,
) -> tuple[WeightDelta, dict[str, Json]]:
    """Train one block; the encoder passed in keeps every bit, even after an error.

    Args:
        encoder: float32, on the device that trains.
        tap: the tensor that is regressed.
        block: the block to train.
        entering: the inputs of the block.
        mask: bool (k,).
        gain: how far masked features go: 1 moves the person's mean to the average of people.
        params: settings of training; `auto` is resolved here.
        seed: decides every draw.
        start: a checkpoint to continue from.
        on_step: called after each step; see `unlearn`.

    Returns:
        The delta, and entries for the record.

    Raises:
        DivergedError: a loss is not finite or leaves its range.
    """
    given, held, others, nulls = entering.given, entering.held, entering.others, entering.nulls
    device = next(encoder.model.parameters()).device
    tail = Tail(encoder, block, tap)
    features, kept, silent = (_through(tail, part, device) for part in (given.inputs, others, nulls))
    average = kept.mean(0)
    means = {person: features[_of(given, person)].mean(0) for person in set(given.people)}
    shifts = torch.stack([average - means[person] for person in given.people])
    forget = ForgetSet(given.inputs, features, shifts, given.people)
    retain = RetainSet(len(others), lambda places: (others[list(places)], kept[list(places)]), nulls, silent)
    # `away` adds the shift as it is.
    settings = _resolved(params).model_copy(update={"alpha": gain, "direction": "away", "mask_scope": "global"})
    names = encoder.weights_for(f"block:{block}", tap)
    watch = None
    if held.people:
        way = torch.stack([average - means[person] for person in held.people]) * mask * gain
        watch = _Watch(tail, held.inputs, way, device)
    delta, told = unlearn(encoder, tap, names, forget, retain, mask, settings, seed, start, on_step, tail, watch)
    return delta, told | {"block": block}


def _resolved(params: UnlearnParams) -> UnlearnParams:
    usual = {"learning_rate": LEARNING_RATE, "forget_weight": FORGET_WEIGHT, "batch": BATCH, "steps": STEPS}
    return params.model_copy(update={name: value for name, value in usual.items() if getattr(params, name) == "auto"})


class _Watch:
    """Looks at held-out photos, and says when they no longer get closer to their aim."""

    def __init__(self, tail: Tail, inputs: Tensor, way: Tensor, device: torch.device) -> None:
        self._tail, self._inputs, self._device = tail, inputs, device
        self._aim = _through(tail, inputs, device) + way
        self._whole = float(torch.linalg.vector_norm(way.flatten(1), dim=1).mean())

    def __call__(self, state: TrainState) -> bool:
        """Whether training is long enough; looks at the photos when it is time and that was not yet done."""
        if state.step and state.step % LOOK_EVERY == 0 and state.step not in dict(state.looks):
            state.looks.append((state.step, self._share_left(state)))
        return is_level([share for _, share in state.looks])

    def _share_left(self, state: TrainState) -> float:
        weights = {f"model.{name}": weight for name, weight in state.weights.items()}

        def through(states: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(self._tail, weights, (states,))
            return found

        left = (_through(through, self._inputs, self._device) - self._aim).flatten(1)
        return float(torch.linalg.vector_norm(left, dim=1).mean()) / self._whole


def is_level(shares: Sequence[float]) -> bool:
    """Whether the last looks brought no progress over all earlier ones."""
    if len(shares) <= PATIENCE:
        return False
    return min(shares[-PATIENCE:]) > PROGRESS * min(shares[:-PATIENCE])


def _through(tail: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device) -> Tensor:
    with torch.no_grad():
        return torch.cat([tail(part.to(device)).cpu() for part in torch.split(inputs, 16)])


def _of(states: States, person: int) -> list[int]:
    return [i for i, one in enumerate(states.people) if one == person]
