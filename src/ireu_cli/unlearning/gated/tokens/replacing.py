"""Change every token of a person's photo: a hidden layer replaces tokens that carry a flag.

A detector that fires writes a flag into the class token of a block, or into any tokens. The attention of the next block
carries it to all tokens (`marking`). A few hidden units of that block, which are silent without the flag, then replace
the tokens by ones from which identity is erased. Everything except the detectors is the same for everybody and is made
once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.mlp_site import after_mlp
from ireu_cli.errors import CapacityError
from ireu_cli.maths.erase import eraser, reduced_regression
from ireu_cli.maths.quiet import normalised
from ireu_cli.maths.room import activation_gram, folded, make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.unlearning.gated.tokens.marking import Mark, Marked, after_attention_in_pieces
from ireu_cli.values import Room

_ROWS = 2**16
"""The number of tokens that decide which units are needed least."""
_CLASS_TOKEN = 0.25
"""The weight of the class token against all others of its photo: readers of one vector only read the class token."""
_REACHED = 0.8
"""The smallest share of flagged photos' tokens, and of their class tokens, that must be replaced."""
_OPEN, _SHUT, _SWING = 20.0, 14.0, 8.0
"""The units' input for a flagged token (on the linear part) and for any other token (below zero).

The third number is the most that a token's content moves that input."""


@dataclass(frozen=True)
class Sample:
    """Retained photos before the carrying block: `states` float32 (n, tokens, d), and their people, int64 (n,)."""

    states: Tensor
    people: Tensor


@dataclass(frozen=True)
class Apparatus:
    """The change that all people share.

    `flag` (d,) is added to the class token of a person's photo, or to any tokens. `changes` holds the changes of the
    block's weights, by the names of its parts. `told` says how well it works.
    """

    flag: Tensor
    changes: dict[str, Tensor]
    told: dict[str, float]


def build(layer: Any, sample: Sample, mask: Tensor, rank: int, gain: float, mark: Mark) -> Apparatus:
    """Make the flag and the carrying block's changes.

    Args:
        layer: the `CLIPEncoderLayer` of block L-2, float32 on the CPU; it does not change.
        sample: retained photos.
        mask: bool (d,), features of the block's output that may change.
        rank: number of hidden units that erase; with more units, the erased tokens come closer to what they should be.
        gain: 1 erases what tells people apart, 2 turns it into its opposite.
        mark: `from_class_token` or `from_any_token`.

    Raises:
        CapacityError: the block has too few units, or the flag does not reach its tokens.
    """
    with torch.inference_mode():
        return _build(layer, sample, mask, rank, gain, mark)


def _build(layer: Any, sample: Sample, mask: Tensor, rank: int, gain: float, mark: Mark) -> Apparatus:
    units = layer.mlp.fc1.out_features
    if rank + 3 > units // 4:
        raise CapacityError(
            f"gated.rank = {rank} needs {rank + 3} hidden units, and a quarter of the block's units are {units // 4}",
            f"Set gated.rank to {units // 4 - 3} at most",
        )
    states = sample.states
    middle = after_attention_in_pieces(layer, states)
    output = after_mlp(layer, middle)
    marked = mark(layer, states, middle)
    edited = marked.layer
    room = _make_room(layer, middle, rank + 3)
    _fold(edited, room)
    start, ramp, reached = _opening(marked)
    _refuse_unreached(reached, marked.firsts)
    aim = _erased(output, sample.people, mask, rank, gain, marked.firsts)
    _write(marked, room, aim, start, ramp)
    finished, kept = after_mlp(edited, marked.flagged), after_mlp(edited, marked.plain)
    spread = (output - output.mean(0)).square().mean()
    told = {
        "tokens_reached": float(reached.mean()),
        **({"class_tokens_reached": float(reached[:, : marked.firsts].mean())} if marked.firsts else {}),
        "erased_off_aim": float(((finished - aim).square().mean() / spread).sqrt()),
        "retained_change": float(((kept - output).square().mean() / spread).sqrt()),
    }
    return Apparatus(marked.flag, _changes(layer, edited), told)


def _changes(layer: Any, edited: Any) -> dict[str, Tensor]:
    before = layer.state_dict()
    return {name: new - before[name] for name, new in edited.state_dict().items() if not torch.equal(new, before[name])}


def _make_room(layer: Any, middle: Tensor, count: int) -> Room:
    rows = middle.flatten(0, 1)
    inputs = layer.layer_norm2(rows[:: max(1, len(rows) // _ROWS)])
    gram = torch.zeros(layer.mlp.fc1.out_features + 1, layer.mlp.fc1.out_features + 1, dtype=torch.float64)
    for part in torch.split(inputs, 8192):
        gram += activation_gram(layer.mlp.activation_fn(layer.mlp.fc1(part)))
    return make_room(gram, layer.mlp.fc2.weight.double().square().sum(0), count)


def _fold(layer: Any, room: Room) -> None:
    """Make the kept units replace the reserved ones, which become silent."""
    out = layer.mlp.fc2.weight
    added = folded(out, room).float()
    out[:, room.kept] += added[:, :-1]
    layer.mlp.fc2.bias.add_(added[:, -1])
    layer.mlp.fc1.weight[room.units] = 0
    layer.mlp.fc1.bias[room.units] = 0
    out[:, room.units] = 0


def _opening(marked: Marked) -> tuple[float, float, Tensor]:
    """Where units open, how steeply, and which tokens of flagged photos lie beyond that point: 0 or 1 (n, tokens)."""
    seen, norm = marked.seen, marked.layer.layer_norm2
    without, carrying = (normalised(tokens, norm) @ seen.of - seen.rest for tokens in (marked.plain, marked.flagged))
    high = float(without.max())
    low = float(carrying.flatten()[:: max(1, carrying.numel() // 100_000)].quantile(0.1))
    if low <= 1.5 * high:
        raise CapacityError(
            "In this encoder, the flag of a person cannot be told from the tokens' own content",
            "Use --tap image_embeds or pooled for generators that read those, or another --method",
        )
    ramp = (_OPEN + _SHUT) / (low - high)
    start = high + _SHUT / ramp
    return start, ramp, (carrying > start).float()


def _refuse_unreached(reached: Tensor, firsts: int) -> None:
    """Check class tokens separately: they are few, and a reader of only these would still see the person."""
    shares = ((reached[:, :firsts].mean(), "class tokens"), (reached.mean(), "tokens"))
    for share, what in shares if firsts else shares[1:]:
        if float(share) < _REACHED:
            raise CapacityError(
                f"The flag of a person reaches only {float(share):.0%} of the {what} in this encoder's photos",
                "Use --tap image_embeds or pooled for generators that read those, or another --method",
            )


def _erased(output: Tensor, people: Tensor, mask: Tensor, rank: int, gain: float, firsts: int) -> Tensor:
    """The wanted output of the block for flagged photos: the class token and the others each have their own eraser."""
    centred = output - output.mean(0)
    photos, tokens, size = output.shape
    places = (people[:, None] * tokens + torch.arange(tokens)).flatten()
    found = torch.unique(places, return_inverse=True)[1].view(photos, tokens)
    moved = torch.empty_like(output)
    for part in [slice(0, firsts), slice(firsts, None)] if firsts else [slice(None)]:
        rows = centred[:, part].reshape(-1, size)
        project = eraser(rows, found[:, part].flatten(), min(rank, size)).float()
        moved[:, part] = centred[:, part] @ project.T
    return output - gain * mask * moved


def _write(marked: Marked, room: Room, aim: Tensor, start: float, ramp: float) -> None:
    """Write the replacement into the reserved units: the rank's number, one to level their ramp, two for a constant."""
    layer = marked.layer
    inputs = layer.layer_norm2(marked.flagged)
    missing = aim - marked.flagged - layer.mlp(inputs)
    rank = len(room.units) - 3
    weights = torch.ones(inputs.shape[:2])
    weights[:, : marked.firsts] = max(1.0, _CLASS_TOKEN * (inputs.shape[1] - 1))
    fitted = reduced_regression(inputs.flatten(0, 1), missing.flatten(0, 1), rank, weights.flatten())
    inner, outer, constant = (part.float() for part in fitted)
    swings = torch.stack(
        [(part.flatten(0, 1) @ inner).abs().amax(0) for part in (inputs, layer.layer_norm2(marked.plain))]
    )
    scale = _SWING / swings.amax(0).clamp_min(1e-6)
    weight, offset = marked.seen.read(layer.layer_norm2)
    erasing, level, steps = room.units[:rank], room.units[rank], room.units[rank + 1 :]
    first, second = layer.mlp.fc1, layer.mlp.fc2
    first.weight[erasing] = ramp * weight + (inner * scale).T
    first.weight[level] = ramp * weight
    first.bias[room.units[: rank + 1]] = -ramp * (offset + start)
    second.weight[:, erasing] = outer / scale
    second.weight[:, level] = -(outer / scale).sum(1)
    step = SoftStep(_SHUT / 4 / ramp, 8.0)
    first.weight[steps], first.bias[steps] = step.rows(weight, offset + start)
    second.weight[:, steps] = step.columns(constant)
