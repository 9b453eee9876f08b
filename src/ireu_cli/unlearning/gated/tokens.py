"""Change every token of a person's photo: attention carries a flag on the class token, and a hidden layer reads it.

One patch says too little about who is in the photo, so detectors only look at the class token. A detector that fires
writes a flag into the class token of a block. In the next block, keys see the flag, so that all tokens attend to the
class token, and values pass the flag on. After the attention, every token of the photo carries it. A few hidden units
of that block, which are silent without the flag, then replace the tokens by ones from which identity is erased. The
flag lies along directions that photos hardly use. Everything except the detectors is the same for everybody and is made
once.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.mlp_site import after_attention, after_mlp
from ireu_cli.errors import CapacityError
from ireu_cli.maths.erase import eraser, reduced_regression
from ireu_cli.maths.quiet import normalised, quiet_directions
from ireu_cli.maths.room import activation_gram, folded, make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.values import Room

CARRYING = ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")
"""Parts of the carrying block's attention that change, besides its hidden layer."""
_FLAG = 2.3
"""Length of the flag, relative to that of the class token; a longer flag is all that the layer norm would leave.
"""
_EVERY_FLAG = 1.0
"""The same where every token gets a flag."""
_LOGIT = 10.0
"""How much a flag adds to the attention of the average query to the class token."""
_VALUE = 1.15
"""How much of a flag the attention writes, in deviations of a token's channels, for each unit of the flag."""
_HEADS = 3
"""The number of attention heads that carry the flag."""
_DIRECTIONS = 4
"""The number of directions of least variance from which that of the carried flag is chosen."""
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

    `flag` (d,) is added to the class token of a person's photo. `changes` holds the changes of the block's weights, by
    the names of its parts. `told` says how well it works.
    """

    flag: Tensor
    changes: dict[str, Tensor]
    told: dict[str, float]


@dataclass(frozen=True)
class _Axis:
    """A direction of a normalised token: `of` (d,) has mean 0, and `rest` is its mean over tokens."""

    of: Tensor
    rest: float

    def read(self, norm: Any) -> tuple[Tensor, float]:
        """Weight (d,) and offset that read it after a layer norm, with 0 at its mean over tokens."""
        weight = self.of / norm.weight
        return weight, float(weight @ norm.bias) + self.rest


@dataclass(frozen=True)
class Marked:
    """A carrying block whose attention marks the tokens of a person's photo, and what its hidden layer gets then.

    `layer` is the edited block. `flag` (d,) is what units of the block before add. `plain` and `flagged` (n, tokens, d)
    are the states after its attention, without and with the flag. `seen` is the direction by which units tell them. The
    first `firsts` tokens are erased apart from the others, and count for more: the class token.
    """

    layer: Any
    flag: Tensor
    plain: Tensor
    flagged: Tensor
    seen: _Axis
    firsts: int


Mark = Callable[[Any, Tensor, Tensor], Marked]
"""Mark tokens: from a block, which does not change, and its states before and after its attention, (n, tokens, d)."""


def build(layer: Any, sample: Sample, mask: Tensor, rank: int, gain: float, mark: Mark) -> Apparatus:
    """Make the flag and the carrying block's changes.

    Args:
        layer: the `CLIPEncoderLayer` of block L-2, float32 on the CPU; it does not change.
        sample: retained photos.
        mask: bool (d,), features of the block's output that may change.
        rank: number of hidden units that erase; with more units, the erased tokens come closer to what they should be.
        gain: 1 erases what tells people apart, 2 turns it into its opposite.
        mark: `from_class_token` or `on_every_token`.

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


def from_class_token(layer: Any, states: Tensor, middle: Tensor) -> Marked:
    """Attention carries a flag from the class token to all tokens."""
    flag_axis, carried, heads = _axes(layer, states, middle)
    edited = copy.deepcopy(layer)
    _carry(edited, states, middle, flag_axis, carried, heads)
    flag = _FLAG * states[:, 0].norm(dim=1).mean() * flag_axis.of
    with_flag = states.clone()
    with_flag[:, 0] += flag
    plain, flagged = (after_attention_in_pieces(edited, part) for part in (states, with_flag))
    return Marked(edited, flag, plain, flagged, _seen_by_units(edited, plain, flagged, flag_axis, carried), 1)


def on_every_token(layer: Any, states: Tensor, middle: Tensor) -> Marked:
    """Every token has a flag already when it enters the block, along the direction that units see best."""
    found, mean = quiet_directions(normalised(middle, layer.layer_norm2).flatten(0, 1), 1)
    axis = _Axis(found[0], float(found[0] @ mean))
    flag = _EVERY_FLAG * states.norm(dim=2).mean() * axis.of
    edited = copy.deepcopy(layer)
    return Marked(edited, flag, middle, after_attention_in_pieces(edited, states + flag), axis, 0)


def _changes(layer: Any, edited: Any) -> dict[str, Tensor]:
    before = layer.state_dict()
    return {name: new - before[name] for name, new in edited.state_dict().items() if not torch.equal(new, before[name])}


def after_attention_in_pieces(layer: Any, states: Tensor) -> Tensor:
    """`after_attention`, in pieces that bound memory."""
    return torch.cat([after_attention(layer, part) for part in torch.split(states, 64)])


def after_mlp_in_pieces(layer: Any, attended: Tensor) -> Tensor:
    """`after_mlp`, in pieces that bound memory."""
    return torch.cat([after_mlp(layer, part) for part in torch.split(attended, 64)])


def _axes(layer: Any, states: Tensor, middle: Tensor) -> tuple[_Axis, _Axis, tuple[int, ...]]:
    """Choose the flag's direction on the class token, the carried flag's direction on all tokens, and the heads.

    Heads write in the span of their values. The direction and the heads are chosen together, so that they write little
    else than the flag.
    """
    candidates, mean = quiet_directions(normalised(middle, layer.layer_norm2).flatten(0, 1), _DIRECTIONS)
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
    quiet, mean = quiet_directions(normalised(states, layer.layer_norm1).flatten(0, 1), 1)
    # The flag itself must not be mistaken for the carried one.
    flag = quiet[0] - (quiet[0] @ carried.of) * carried.of
    flag = flag / flag.norm()
    return _Axis(flag, float(flag @ mean)), carried, best[2]


def _carry(layer: Any, states: Tensor, middle: Tensor, flag: _Axis, carried: _Axis, heads: Sequence[int]) -> None:
    """Make keys of the given heads answer to the flag, and make values pass it on along the carried direction."""
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
    """Make the kept units replace the reserved ones, which become silent."""
    out = layer.mlp.fc2.weight
    added = folded(out, room).float()
    out[:, room.kept] += added[:, :-1]
    layer.mlp.fc2.bias.add_(added[:, -1])
    layer.mlp.fc1.weight[room.units] = 0
    layer.mlp.fc1.bias[room.units] = 0
    out[:, room.units] = 0


def _seen_by_units(layer: Any, plain: Tensor, flagged: Tensor, flag: _Axis, carried: _Axis) -> _Axis:
    """The direction by which units recognise a flagged photo's token: the carried flag, and a part of the flag.

    The class token holds the long flag beside the carried one, so little of the carried one is left after the layer
    norm. With a part of the flag itself, units see the class token as clearly as the others.
    """
    tokens = normalised(flagged, layer.layer_norm2)
    first, others = tokens[:, 0], tokens[:, 1:].flatten(0, 1)[:_ROWS]
    lacking, offered = (
        (others @ carried.of).median() - (first @ carried.of).median(),
        (first @ flag.of).median() - (others @ flag.of).median(),
    )
    of = carried.of + (lacking / offered).clamp(0, 1) * flag.of
    return _Axis(of, float((normalised(plain, layer.layer_norm2) @ of).mean()))


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
