"""The vision transformer of EVA02-CLIP, in torch.

Names and order are those of the file that PuLID, ConsisID and others load (`EVA02_CLIP_L_336_psz14_s6B.pt`; PuLID,
`eva_clip/eva_vit_model.py` and `rope.py`). A picture is patches and a class token, with a position added to each:

- a block: x + proj(LN(attention(norm1(x)))), then x + w3(LN(silu(w1(y)) w2(y))) with y = norm2(x). Both inner layer
  norms are over everything that the next layer reads. Keys have no bias.
- positions once more: attention turns queries and keys of patches, pair by pair, by angles that grow with their row and
  column. The class token is not turned.
- the end: the class token's `norm`, then `head`.
"""

import functools
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

MARKS = ("blocks.0.attn.inner_attn_ln.weight", "blocks.0.mlp.w1.weight", "blocks.0.mlp.ffn_ln.weight", "pos_embed")
"""Tensors that together no other encoder has that ireu reads."""
TURNS = ("rope.freqs_cos", "rope.freqs_sin")
"""How tables of angles end that some files hold, once for the whole and once for each block; they follow from sizes."""
HEAD, EPSILON, PRETRAINED_ROW, PERIOD = 64, 1e-6, 16, 10_000
"""Published settings that tensors do not tell, the same for all sizes: the width of a head, the epsilon of layer norms,
and how fast angles grow: as over a row of 16 patches, and for each pair of channels by another power of 10,000."""
_BLOCK = re.compile(r"blocks\.(\d{1,3})\.")


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class EvaConfig:
    """The sizes of a vision transformer, called as in a `CLIPVisionConfig`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    patch_size: int
    image_size: int
    projection_dim: int
    hidden_act: str = "swiglu"
    layer_norm_eps: float = EPSILON

    @property
    def num_attention_heads(self) -> int:
        """How many heads attention has."""
        return self.hidden_size // HEAD


def config_in(shapes: Mapping[str, tuple[int, ...]]) -> EvaConfig:
    """The sizes that the shapes of tensors tell; whether all of them fit is still to be compared.

    Raises:
        ValueError, KeyError, IndexError: a tensor is missing, or the sizes are of no such network.
    """
    numbers = {int(match[1]) for name in shapes if (match := _BLOCK.match(name))}
    if numbers != set(range(len(numbers))):
        raise ValueError("a block is missing")
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    row = math.isqrt(shapes["pos_embed"][1] - 1)
    if not width or width % HEAD or not patch or not row:
        raise ValueError(f"{width} channels, patches of {patch}, {row} in a row")
    inner = shapes["blocks.0.mlp.w1.weight"][0]
    return EvaConfig(width, inner, len(numbers), patch, row * patch, shapes["head.weight"][0])


def prefix_in(names: Collection[str]) -> str | None:
    """What the names of an encoder's tensors begin with in a file, such as `visual.`; None where there is none."""
    starts = (name.removesuffix(MARKS[0]) for name in names if name.endswith(MARKS[0]))
    return next((start for start in starts if all(f"{start}{mark}" in names for mark in MARKS)), None)


def is_left_out(own: str) -> bool:
    """Whether a tensor is no weight of the network: a table of angles, or the token of masked patches in training."""
    return own.endswith(TURNS) or own == "mask_token"


@functools.lru_cache(maxsize=8)
def turns(row: int, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which patches are turned, `row` by `row` of them: (patches, HEAD) each.

    They are kept where they are used: every block of every pass needs them.
    """
    # What is kept here is used with gradients later, whoever asked first.
    with torch.inference_mode(False):
        speeds = PERIOD ** -(torch.arange(0, HEAD // 2, 2).float() / (HEAD // 2))
        line = (torch.arange(row) / row * PRETRAINED_ROW)[:, None] * speeds
        line = line.repeat_interleave(2, dim=1)
        angles = torch.cat([line[:, None].expand(-1, row, -1), line[None].expand(row, -1, -1)], dim=2).flatten(0, 1)
        return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def _turned(states: Tensor) -> Tensor:
    """Turn patches, behind the class token, by their angles: (n, heads, tokens, HEAD) to the same."""
    cosines, sines = turns(math.isqrt(states.shape[2] - 1), states.device, states.dtype)
    first, patches = states[:, :, :1], states[:, :, 1:]
    across = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([first, patches * cosines + across * sines], dim=2)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.inner_attn_ln = nn.LayerNorm(width, eps=EPSILON)
        self.proj = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (n, tokens, width) to what is added to them."""
        rows = self.q_proj(states) + self.q_bias, self.k_proj(states), self.v_proj(states) + self.v_bias
        query, key, value = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in rows)
        mixed = scaled_dot_product_attention(_turned(query), _turned(key), value)
        found: Tensor = self.proj(self.inner_attn_ln(mixed.transpose(1, 2).flatten(2)))
        return found


class GatedMlp(nn.Module):
    """The hidden layer of a block: what two layers give, one of them as a gate, and a layer norm over all units."""

    def __init__(self, width: int, inner: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, inner), nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, eps=EPSILON)
        self.w3 = nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (n, tokens, width) to what is added to them."""
        found: Tensor = self.w3(self.ffn_ln(silu(self.w1(states)) * self.w2(states)))
        return found


class EvaBlock(nn.Module):
    """One block: tokens (n, tokens, width) to those of the next."""

    def __init__(self, config: EvaConfig) -> None:
        """Build it with random weights."""
        super().__init__()
        width = config.hidden_size
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attn = _Attention(width)
        self.mlp = GatedMlp(width, config.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        """Pass tokens through."""
        states = states + self.attn(self.norm1(states))
        found: Tensor = states + self.mlp(self.norm2(states))
        return found


class EvaTower(nn.Module):
    """The whole network but its end: tokens between blocks; `norm` and `head` are for who reads the class token."""

    def __init__(self, config: EvaConfig) -> None:
        """Build it with random weights, or without values on the meta device."""
        super().__init__()
        self.config = config
        width, patch = config.hidden_size, config.patch_size
        tokens = (config.image_size // patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(EvaBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, config.projection_dim)

    def forward(self, pixels: Tensor, depths: Collection[int] = ()) -> dict[int, Tensor]:
        """Pixels (n, 3, side, side) to the tokens that enter some blocks, each (n, tokens, width).

        The number of blocks stands for what leaves the last one.
        """
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        states = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embed
        found = {}
        for depth in range(max(depths, default=-1) + 1):
            if depth:
                states = self.blocks[depth - 1](states)
            if depth in depths:
                found[depth] = states
        return found
