"""The vision transformer of DINOv2, in torch, under the names of its published files (`Dinov2Model` of transformers).

A picture is patches and a class token, with a position added to each. A block adds attention and a hidden layer to
its tokens, each behind a layer norm and each times a scale of its own for every channel. In the largest encoder the
hidden layer is gated: silu of one half of it, times the other half. At the end comes a layer norm of all tokens.

Positions are stored for pictures of 518 px. For smaller ones they are interpolated, as transformers does.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention, silu


@dataclass(frozen=True)
class Dinov2Sizes:
    """The sizes of one.

    Attributes:
        width: channels of a token.
        inner: units of a hidden layer; of a gated one, of each half.
        blocks: how many blocks there are.
        heads: how many heads attention has.
        patch: side of a patch, in pixels.
        places: patches for which a position is stored, a square number.
        epsilon: of all layer norms.
        is_gated: whether hidden layers are gated.
        has_mask: whether a token for masked patches is stored, which nobody reads.
    """

    width: int
    inner: int
    blocks: int
    heads: int
    patch: int
    places: int
    epsilon: float
    is_gated: bool
    has_mask: bool


class _Embeddings(nn.Module):
    def __init__(self, sizes: Dinov2Sizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        if sizes.has_mask:
            self.mask_token = nn.Parameter(torch.zeros(1, sizes.width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, sizes.places + 1, sizes.width))
        patches = nn.Conv2d(3, sizes.width, sizes.patch, stride=sizes.patch)
        self.patch_embeddings = nn.ModuleDict({"projection": patches})

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, side, side) to tokens (n, tokens, width)."""
        maps = self.patch_embeddings["projection"](pixels)
        patches = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        return tokens + self._positions(maps.shape[2], maps.shape[3])

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The positions of the class token and of patches: (1, rows * columns + 1, width)."""
        own, stored = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        side = math.isqrt(stored.shape[1])
        if (rows, columns) == (side, side):
            return self.position_embeddings
        maps = stored.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        # In half precision, cubic weights would shift the positions.
        found = interpolate(maps.float(), (rows, columns), mode="bicubic", align_corners=False).to(stored.dtype)
        return torch.cat([own, found.flatten(2).transpose(1, 2)], dim=1)


class _Attention(nn.Module):
    def __init__(self, sizes: Dinov2Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        parts = {part: nn.Linear(sizes.width, sizes.width) for part in ("query", "key", "value")}
        self.attention = nn.ModuleDict(parts)
        self.output = nn.ModuleDict({"dense": nn.Linear(sizes.width, sizes.width)})

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (n, tokens, width) to what is added to them, before its scale."""
        rows = (self.attention[part](states) for part in ("query", "key", "value"))
        query, key, value = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in rows)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        found: Tensor = self.output["dense"](mixed)
        return found


class _Mlp(nn.Module):
    def __init__(self, sizes: Dinov2Sizes) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(sizes.width, sizes.inner), nn.Linear(sizes.inner, sizes.width)

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (n, tokens, width) to what is added to them, before its scale."""
        found: Tensor = self.fc2(gelu(self.fc1(states)))
        return found


class _GatedMlp(nn.Module):
    def __init__(self, sizes: Dinov2Sizes) -> None:
        super().__init__()
        self.weights_in = nn.Linear(sizes.width, 2 * sizes.inner)
        self.weights_out = nn.Linear(sizes.inner, sizes.width)

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (n, tokens, width) to what is added to them, before its scale."""
        first, second = self.weights_in(states).chunk(2, dim=-1)
        found: Tensor = self.weights_out(silu(first) * second)
        return found


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))


class _Block(nn.Module):
    def __init__(self, sizes: Dinov2Sizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(sizes.width, eps=sizes.epsilon) for _ in range(2))
        self.attention = _Attention(sizes)
        self.layer_scale1, self.layer_scale2 = _Scale(sizes.width), _Scale(sizes.width)
        self.mlp = (_GatedMlp if sizes.is_gated else _Mlp)(sizes)

    def forward(self, states: Tensor) -> Tensor:
        """Pass tokens (n, tokens, width) through."""
        states = states + self.attention(self.norm1(states)) * self.layer_scale1.lambda1
        found: Tensor = states + self.mlp(self.norm2(states)) * self.layer_scale2.lambda1
        return found


class Dinov2(nn.Module):
    """The whole network."""

    def __init__(self, sizes: Dinov2Sizes) -> None:
        """Build it with random weights, or without values on the meta device."""
        super().__init__()
        self.sizes = sizes
        self.embeddings = _Embeddings(sizes)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Block(sizes) for _ in range(sizes.blocks))})
        self.layernorm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)

    def forward(self, pixels: Tensor, depths: Collection[int]) -> dict[int, Tensor]:
        """Pixels (n, 3, side, side) to the tokens that enter some blocks, each (n, tokens, width).

        The number of blocks stands for what leaves the last one, behind the last layer norm.
        """
        states, found = self.embeddings(pixels), {}
        layers: Any = self.encoder["layer"]
        for depth in range(max(depths) + 1):
            if depth:
                states = layers[depth - 1](states)
            if depth in depths:
                found[depth] = self.layernorm(states) if depth == self.sizes.blocks else states
        return found
