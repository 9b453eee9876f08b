"""Changing every token of a person's photo: a flag on the class token, carried by attention, read by a hidden layer.

One patch says too little of who is in the photo, so that only the class token is asked. Where its detector fires, it
writes a flag into the class token of a block. In the next one, keys see the flag, so that all tokens attend to the
class token, and values pass it on; behind the attention every token of the photo carries it. A few hidden units of
that block, which are silent without the flag, then replace the tokens by ones from which identity is erased. The flag
lies along directions that photos hardly use; everything but the detectors is the same for everybody, and made once.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ireu_cli.encoders.mlp_site import after_attention, after_mlp
from ireu_cli.errors import CapacityError
from ireu_cli.maths.erase import eraser, reduced_regression
from ireu_cli.maths.room import activation_gram, folded, make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.values import Room

CARRYING = ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")
"""Parts of the carrying block's attention that change, beside its hidden layer."""
_FLAG = 2.3
"""Length of the flag over that of the class token: beyond, the layer norm leaves nothing but the flag."""
_LOGIT = 10.0
"""What a flag adds to the attention that the average query pays to the class token."""
_VALUE = 1.15
"""What attention writes of a flag, in deviations of a token's channels, for each unit of the flag."""
_HEADS = 3
"""Attention heads that carry the flag."""
_DIRECTIONS = 4
"""Directions of least variance among which the carried flag's is chosen."""
_ROWS = 2**16
"""Tokens that tell which units are missed least."""
_CLASS_TOKEN = 0.25
"""What the class token counts against all others of its photo: who reads one vector reads what comes of it alone."""
_REACHED = 0.8
"""So many of flagged photos' tokens, and of their class tokens, have to be replaced, at least."""
_OPEN, _SHUT, _SWING = 20.0, 14.0, 8.0
"""Where a flagged token puts the units, on their linear part; where any other keeps them, below zero; and how far the
token's content moves them at most."""


@dataclass(frozen=True)
class Sample:
    """Retained photos before the carrying block: `states` float32 (n, tokens, d), and whose they are, int64 (n,)."""

    states: Tensor
    people: Tensor


@dataclass(frozen=True)
class Apparatus:
    """What all people share.

    `flag` (d,) is added to the class token of a person's photo; `changes` are those of the block's weights, by the
    names of its parts; `told` says how well it works.
    """

    flag: Tensor
    changes: dict[str, Tensor]
    told: dict[str, float]


@dataclass(frozen=True)
class _Axis:
    """A direction of a normalised token: `of` (d,) with mean 0, `rest` its mean over tokens."""

    of: Tensor
    rest: float

    def read(self, norm: Any) -> tuple[Tensor, float]:
        """Weight (d,) and offset that read it behind a layer norm: 0 at its mean over tokens."""
        weight = self.of / norm.weight
        return weight, float(weight @ norm.bias) + self.rest


def build(layer: Any, sample: Sample, mask: Tensor, rank: int, gain: float) -> Apparatus:
    """Make the flag and the carrying block's changes.

    Args:
        layer: the `CLIPEncoderLayer` of block L-2, float32 on the CPU; it is left as it is.
        sample: retained photos.
        mask: bool (d,), features of the block's output that may change.
        rank: hidden units that erase; the more, the nearer the erased tokens come to what they should be.
        gain: 1 erases what tells people apart, 2 turns it into its opposite.

    Raises:
        CapacityError: the block has too few units, or the flag does not reach its tokens.
    """
    with torch.inference_mode():
        return _build(layer, sample, mask, rank, gain)


def _build(layer: Any, sample: Sample, mask: Tensor, rank: int, gain: float) -> Apparatus:
    units = layer.mlp.fc1.out_features
    if rank + 3 > units // 4:
        raise CapacityError(
            f"gated.rank = {rank} needs {rank + 3} hidden units, and a quarter of the block's is {units // 4}",
            f"Set gated.rank to {units // 4 - 3} at most",
        )
    states = sample.states
    middle = _after_attention(layer, states)
    output = after_mlp(layer, middle)
    flag_axis, carried, heads = _axes(layer, states, middle)
    edited = copy.deepcopy(layer)
    _carry(edited, states, middle, flag_axis, carried, heads)
    flag = _FLAG * states[:, 0].norm(dim=1).mean() * flag_axis.of
    flagged = states.clone()
    flagged[:, 0] += flag
    plain_middle, flagged_middle = _after_attention(edited, states), _after_attention(edited, flagged)
    room = _make_room(layer, middle, rank + 3)
    _fold(edited, room)
    seen = _seen_by_units(edited, plain_middle, flagged_middle, flag_axis, carried)
    start, ramp, reached = _opening(edited, plain_middle, flagged_middle, seen)
    _refuse_unreached(reached)
    aim = _erased(output, sample.people, mask, rank, gain)
    _write(edited, room, seen, plain_middle, flagged_middle, aim, start, ramp)
    finished, kept = after_mlp(edited, flagged_middle), after_mlp(edited, plain_middle)
    spread = (output - output.mean(0)).square().mean()
    told = {
        "tokens_reached": float(reached.mean()),
        "class_tokens_reached": float(reached[:, 0].mean()),
        "erased_off_aim": float(((finished - aim).square().mean() / spread).sqrt()),
        "retained_change": float(((kept - output).square().mean() / spread).sqrt()),
    }
    return Apparatus(flag, _changes(layer, edited), told)


def _changes(layer: Any, edited: Any) -> dict[str, Tensor]:
    before = layer.state_dict()
    return {name: new - before[name] for name, new in edited.state_dict().items() if not torch.equal(new, before[name])}


def _after_attention(layer: Any, states: Tensor) -> Tensor:
    """(n, tokens, d) to the same behind the attention's residual connection; in pieces, to bound memory."""
    return torch.cat([after_attention(layer, part) for part in torch.split(states, 64)])


def _normalised(states: Tensor, norm: Any) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], eps=norm.eps)


def _quiet(tokens: Tensor, count: int) -> tuple[list[Tensor], Tensor]:
    """The directions along which normalised tokens (n, d) vary least, but for the mean, which a layer norm removes."""
    mean = tokens.mean(0)
    centred = tokens - mean
    _, vectors = torch.linalg.eigh((centred.T @ centred / len(tokens)).double())
    found = [vectors[:, i].float() - vectors[:, i].float().mean() for i in range(1, count + 1)]
    return [vector / vector.norm() for vector in found], mean


def _axes(layer: Any, states: Tensor, middle: Tensor) -> tuple[_Axis, _Axis, tuple[int, ...]]:
    """The flag's direction on the class token, the carried flag's on all tokens, and the heads that carry it.

    Heads write along what their values span; the direction and the heads are chosen together so that little else than
    the flag is written.
    """
    candidates, mean = _quiet(_normalised(middle, layer.layer_norm2).flatten(0, 1), _DIRECTIONS)
    attention = layer.self_attn
    number, size = attention.num_heads, attention.head_dim
    out = attention.out_proj.weight
    best: tuple[float, Tensor, tuple[int, ...]] | None = None
    for heads in itertools.combinations(range(number), min(_HEADS, number)):
        basis = torch.linalg.qr(torch.cat([out[:, h * size : (h + 1) * size] for h in heads], 1)).Q
        for candidate in candidates:
            inside = float((basis.T @ candidate).norm())
            if best is None or inside > best[0]:
                best = (inside, candidate, heads)
    assert best is not None  # noqa: S101 - there is a head and a direction
    carried = _Axis(best[1], float(best[1] @ mean))
    quiet, mean = _quiet(_normalised(states, layer.layer_norm1).flatten(0, 1), 1)
    # The flag itself must not be taken for the carried one.
    flag = quiet[0] - (quiet[0] @ carried.of) * carried.of
    flag = flag / flag.norm()
    return _Axis(flag, float(flag @ mean)), carried, best[2]


def _carry(layer: Any, states: Tensor, middle: Tensor, flag: _Axis, carried: _Axis, heads: Sequence[int]) -> None:
    """Let keys of the given heads answer to the flag, and values pass it on along the carried direction."""
    attention, norm = layer.self_attn, layer.layer_norm1
    size, full = attention.head_dim, states.shape[-1] ** 0.5
    places = torch.cat([torch.arange(h * size, (h + 1) * size) for h in heads])
    queries = attention.q_proj(norm(states)).flatten(0, 1).mean(0)
    key, value = torch.zeros(states.shape[-1]), torch.zeros(states.shape[-1])
    for head in heads:
        part = slice(head * size, (head + 1) * size)
        key[part] = queries[part] / queries[part].square().sum() * _LOGIT / full * size**0.5
    out = attention.out_proj.weight[:, places]
    square = out.T @ out
    square.diagonal().add_(1e-3 * square.diagonal().mean())
    pattern = torch.linalg.solve(square, out.T @ carried.of)
    deviation = middle.std(-1, correction=0).mean()
    value[places] = pattern / (carried.of @ (out @ pattern)) * _VALUE * deviation
    weight, offset = flag.read(norm)
    for projection, written in ((attention.k_proj, key), (attention.v_proj, value)):
        projection.weight.add_(torch.outer(written, weight))
        projection.bias.sub_(written * offset)


def _make_room(layer: Any, middle: Tensor, count: int) -> Room:
    rows = middle.flatten(0, 1)
    inputs = layer.layer_norm2(rows[:: max(1, len(rows) // _ROWS)])
    gram = torch.zeros(layer.mlp.fc1.out_features + 1, layer.mlp.fc1.out_features + 1, dtype=torch.float64)
    for part in torch.split(inputs, 8192):
        gram += activation_gram(layer.mlp.activation_fn(layer.mlp.fc1(part)))
    return make_room(gram, layer.mlp.fc2.weight.double().square().sum(0), count)


def _fold(layer: Any, room: Room) -> None:
    """Let the kept units stand in for the reserved ones, which fall silent."""
    out = layer.mlp.fc2.weight
    added = folded(out, room).float()
    out[:, room.kept] += added[:, :-1]
    layer.mlp.fc2.bias.add_(added[:, -1])
    layer.mlp.fc1.weight[room.units] = 0
    layer.mlp.fc1.bias[room.units] = 0
    out[:, room.units] = 0


def _seen_by_units(layer: Any, plain: Tensor, flagged: Tensor, flag: _Axis, carried: _Axis) -> _Axis:
    """What tells the units of a flagged photo's token: the carried flag, and so much of the flag itself.

    The class token has the long flag in it beside the carried one, so that little of the latter is left behind the
    layer norm; with the flag itself it is seen as clearly as the others are.
    """
    tokens = _normalised(flagged, layer.layer_norm2)
    first, others = tokens[:, 0], tokens[:, 1:].flatten(0, 1)[:_ROWS]
    lacking, offered = (
        (others @ carried.of).median() - (first @ carried.of).median(),
        (first @ flag.of).median() - (others @ flag.of).median(),
    )
    of = carried.of + (lacking / offered).clamp(0, 1) * flag.of
    return _Axis(of, float((_normalised(plain, layer.layer_norm2) @ of).mean()))


def _opening(layer: Any, plain: Tensor, flagged: Tensor, seen: _Axis) -> tuple[float, float, Tensor]:
    """Where units open, how steeply, and which of the flagged photos' tokens lie beyond: 0 or 1 (n, tokens)."""
    without, carrying = (_normalised(tokens, layer.layer_norm2) @ seen.of - seen.rest for tokens in (plain, flagged))
    high = float(without.max())
    low = float(carrying.flatten()[:: max(1, carrying.numel() // 100_000)].quantile(0.1))
    if low <= 1.5 * high:
        raise CapacityError(
            "The flag of a person cannot be told from what tokens say by themselves in this encoder",
            "Use --tap image_embeds or pooled for generators that read those, or another --method",
        )
    ramp = (_OPEN + _SHUT) / (low - high)
    start = high + _SHUT / ramp
    return start, ramp, (carrying > start).float()


def _refuse_unreached(reached: Tensor) -> None:
    """Class tokens are few among all tokens, and what reads them alone would still see the person."""
    for share, what in ((reached[:, 0].mean(), "class tokens"), (reached.mean(), "tokens")):
        if float(share) < _REACHED:
            raise CapacityError(
                f"The flag of a person reaches {float(share):.0%} of the {what} of this encoder's photos",
                "Use --tap image_embeds or pooled for generators that read those, or another --method",
            )


def _erased(output: Tensor, people: Tensor, mask: Tensor, rank: int, gain: float) -> Tensor:
    """What the block is to put out for flagged photos: the class token and the others each with their own eraser."""
    centred = output - output.mean(0)
    photos, tokens, size = output.shape
    places = (people[:, None] * tokens + torch.arange(tokens)).flatten()
    found = torch.unique(places, return_inverse=True)[1].view(photos, tokens)
    moved = torch.empty_like(output)
    for part in (slice(0, 1), slice(1, None)):
        rows = centred[:, part].reshape(-1, size)
        project = eraser(rows, found[:, part].flatten(), min(rank, size)).float()
        moved[:, part] = centred[:, part] @ project.T
    return output - gain * mask * moved


def _write(
    layer: Any, room: Room, seen: _Axis, plain: Tensor, flagged: Tensor, aim: Tensor, start: float, ramp: float
) -> None:
    """Write the replacement into the reserved units: a rank's worth, one that levels their ramp, two for a constant."""
    inputs = layer.layer_norm2(flagged)
    missing = aim - flagged - layer.mlp(inputs)
    rank = len(room.units) - 3
    weights = torch.ones(inputs.shape[:2])
    weights[:, 0] = max(1.0, _CLASS_TOKEN * (inputs.shape[1] - 1))
    fitted = reduced_regression(inputs.flatten(0, 1), missing.flatten(0, 1), rank, weights.flatten())
    inner, outer, constant = (part.float() for part in fitted)
    swings = torch.stack([(part.flatten(0, 1) @ inner).abs().amax(0) for part in (inputs, layer.layer_norm2(plain))])
    scale = _SWING / swings.amax(0).clamp_min(1e-6)
    weight, offset = seen.read(layer.layer_norm2)
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
