"""Mark every token of a person's photo: attention carries a flag from the tokens that have one to all of them.

Detectors flag the class token, or all tokens that show a high enough score. In the block behind them, keys see the
flag, so that all tokens attend to flagged ones, and values pass the flag on. After the attention, every token of the
photo carries it. It lies along directions that photos hardly use.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.mlp_site import after_attention, after_mlp
from ireu_cli.maths.quiet import normalised, quiet_directions

CARRYING = ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")
"""Parts of the carrying block's attention that change, besides its hidden layer."""
_FLAG = 2.3
"""Length of the flag, relative to that of the class token; a longer flag is all that the layer norm would leave.
"""
_ANY_FLAG = 1.0
"""The same where any tokens may have one, relative to that of tokens: what they say has to stay readable."""
_LOGIT = 10.0
"""How much a flag adds to the attention of the average query to the flagged token."""
_VALUE = 1.15
"""How much of a flag the attention writes, in deviations of a token's channels, for each unit of the flag."""
_HEADS = 3
"""The number of attention heads that carry the flag."""
_DIRECTIONS = 4
"""The number of directions of least variance from which that of the carried flag is chosen."""
_ROWS = 2**16
"""The number of tokens that decide how units tell flagged photos."""
_SEED = 0
"""The draw of tokens that have a flag."""


@dataclass(frozen=True)
class Axis:
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
    seen: Axis
    firsts: int


Mark = Callable[[Any, Tensor, Tensor], Marked]
"""Mark tokens: from a block, which does not change, and its states before and after its attention, (n, tokens, d)."""


def from_class_token(layer: Any, states: Tensor, middle: Tensor) -> Marked:
    """Detectors flag the class token."""
    where = torch.zeros(states.shape[:2], dtype=torch.bool)
    where[:, 0] = True
    return _marked(layer, states, middle, where, _FLAG * states[:, 0].norm(dim=1).mean(), 1)


def from_any_token(layer: Any, states: Tensor, middle: Tensor) -> Marked:
    """Detectors flag one token or more: between one and all of them, drawn for each photo."""
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.rand(states.shape[:2], generator=generator).argsort(1).argsort(1)
    where = order < 1 + (torch.rand(len(states), 1, generator=generator) * states.shape[1]).long()
    return _marked(layer, states, middle, where, _ANY_FLAG * states.norm(dim=2).mean(), 0)


def on_every_token(layer: Any, states: Tensor, middle: Tensor) -> Marked:
    """Detectors flag every token, along the direction that units see, and attention carries nothing.

    This works where queries have so little in common that no key attracts them all. But of a photo near a detector's
    threshold, only some tokens are flagged.
    """
    found, mean = quiet_directions(normalised(middle, layer.layer_norm2).flatten(0, 1), 1)
    axis = Axis(found[0], float(found[0] @ mean))
    flag = _ANY_FLAG * states.norm(dim=2).mean() * axis.of
    return Marked(copy.deepcopy(layer), flag, middle, after_attention_in_pieces(layer, states + flag), axis, 0)


def _marked(layer: Any, states: Tensor, middle: Tensor, where: Tensor, length: Tensor, firsts: int) -> Marked:
    """Flag tokens where bool (n, tokens) says, with flags of a length."""
    flag_axis, carried, heads = _axes(layer, states, middle)
    edited = copy.deepcopy(layer)
    _carry(edited, states, middle, flag_axis, carried, heads)
    flag = length * flag_axis.of
    with_flag = states.clone()
    with_flag[where] += flag
    plain, flagged = (after_attention_in_pieces(edited, part) for part in (states, with_flag))
    seen = _seen_by_units(edited, plain, flagged, where, flag_axis, carried)
    return Marked(edited, flag, plain, flagged, seen, firsts)


def after_attention_in_pieces(layer: Any, states: Tensor) -> Tensor:
    """`after_attention`, in pieces that bound memory."""
    return torch.cat([after_attention(layer, part) for part in torch.split(states, 64)])


def after_mlp_in_pieces(layer: Any, attended: Tensor) -> Tensor:
    """`after_mlp`, in pieces that bound memory."""
    return torch.cat([after_mlp(layer, part) for part in torch.split(attended, 64)])


def _axes(layer: Any, states: Tensor, middle: Tensor) -> tuple[Axis, Axis, tuple[int, ...]]:
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
    carried = Axis(best[1], float(best[1] @ mean))
    quiet, mean = quiet_directions(normalised(states, layer.layer_norm1).flatten(0, 1), 1)
    # The flag itself must not be mistaken for the carried one.
    flag = quiet[0] - (quiet[0] @ carried.of) * carried.of
    flag = flag / flag.norm()
    return Axis(flag, float(flag @ mean)), carried, best[2]


def _carry(layer: Any, states: Tensor, middle: Tensor, flag: Axis, carried: Axis, heads: Sequence[int]) -> None:
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


def _seen_by_units(layer: Any, plain: Tensor, flagged: Tensor, where: Tensor, flag: Axis, carried: Axis) -> Axis:
    """The direction by which units recognise a flagged photo's token: the carried flag, and a part of the flag.

    A flagged token holds the long flag beside the carried one, so little of the carried one is left after the layer
    norm. With a part of the flag itself, units see it as clearly as the others.
    """
    tokens = normalised(flagged, layer.layer_norm2)
    first, others = tokens[where], tokens[~where][:_ROWS]
    lacking, offered = (
        (others @ carried.of).median() - (first @ carried.of).median(),
        (first @ flag.of).median() - (others @ flag.of).median(),
    )
    of = carried.of + (lacking / offered).clamp(0, 1) * flag.of
    return Axis(of, float((normalised(plain, layer.layer_norm2) @ of).mean()))
