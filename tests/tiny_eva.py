"""EVA02-CLIP with random weights, tiny or of the true size; the file of both towers; and how its readers compute."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, layer_norm, linear, sigmoid

from ireu_cli.encoders.eva.tower import EvaConfig, EvaTower

FILE = "EVA02_CLIP_L_336_psz14_s6B.pt"
TINY = EvaConfig(128, 96, 4, 7, 28, 48)
DEEP = EvaConfig(64, 48, 22, 7, 28, 32)
"""With all blocks before which PuLID reads."""
TRUE = EvaConfig(1024, 2730, 24, 14, 336, 768)


def random_state(config: EvaConfig = TINY, seed: int = 0) -> dict[str, Tensor]:
    """The vision transformer under its own names, in their order, with weights by which pictures differ."""
    draw = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in EvaTower(config).state_dict().items()}
    found = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=draw)
        if name in {"cls_token", "pos_embed"}:
            found[name] = 0.5 * drawn
        elif name.endswith("weight") and len(shape) > 1:
            found[name] = drawn * math.prod(shape[1:]) ** -0.5
        else:
            found[name] = 0.1 * drawn + float(name.endswith("weight"))
    return found


def tables(config: EvaConfig) -> dict[str, Tensor]:
    """The cosines and sines of the angles by which patches are turned, one place after another: (patches, 64)."""
    row = config.image_size // config.patch_size
    angles = torch.zeros(row * row, 64)
    for place in range(row * row):
        for channel in range(64):
            at = place // row if channel < 32 else place % row
            angles[place, channel] = at * 16 / row / 10_000 ** ((channel % 32) // 2 * 2 / 32)
    return {"rope.freqs_cos": angles.cos(), "rope.freqs_sin": angles.sin()}


def whole_state(config: EvaConfig = TINY, *, with_tables: bool = True) -> dict[str, Tensor]:
    """Both towers as `state_dict` of eva_clip's `CustomCLIP` has them; the text tower is a stand-in."""
    found = {f"visual.{name}": tensor for name, tensor in random_state(config).items()}
    if with_tables:
        starts = ["visual.", *(f"visual.blocks.{number}.attn." for number in range(config.num_hidden_layers))]
        found |= {f"{start}{name}": table.clone() for start in starts for name, table in tables(config).items()}
    draw = torch.Generator().manual_seed(7)
    found["text.token_embedding.weight"] = torch.randn(5, 3, generator=draw)
    return {**found, "logit_scale": torch.tensor(math.log(1 / 0.07))}


def write_eva(path: Path, config: EvaConfig = TINY, dtype: torch.dtype = torch.float16) -> Path:
    """Write the file of both towers as `torch.save` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.to(dtype) for name, tensor in whole_state(config).items()}, path)
    return path


def as_eva_clip(state: Mapping[str, Tensor], pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What eva_clip's vision transformer computes, from the tensors alone: its head, and what enters each block.

    One head after another, and angles as rotations of pairs of channels, so that little is shared with ireu's own.

    Args:
        state: the tower under its own names.
        pixels: (n, 3, side, side).
    """

    def through(inputs: Tensor, name: str) -> Tensor:
        return linear(inputs, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def normal(inputs: Tensor, name: str) -> Tensor:
        return layer_norm(inputs, inputs.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    kernel = state["patch_embed.proj.weight"]
    patches = conv2d(pixels, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    row = patches.shape[-1]
    states = torch.cat([state["cls_token"].repeat(len(pixels), 1, 1), patches.flatten(2).mT], 1) + state["pos_embed"]
    entering, number = [], 0
    while f"blocks.{number}.norm1.weight" in state:
        entering.append(states)
        block = f"blocks.{number}"
        inputs = normal(states, f"{block}.norm1")
        query = through(inputs, f"{block}.attn.q_proj") + state[f"{block}.attn.q_bias"]
        key = through(inputs, f"{block}.attn.k_proj")
        value = through(inputs, f"{block}.attn.v_proj") + state[f"{block}.attn.v_bias"]
        mixed = [
            ((turned(q, row) @ turned(k, row).mT) / math.sqrt(64)).softmax(-1) @ v
            for q, k, v in zip(*(torch.split(each, 64, dim=-1) for each in (query, key, value)), strict=True)
        ]
        gathered = normal(torch.cat(mixed, dim=-1), f"{block}.attn.inner_attn_ln")
        states = states + through(gathered, f"{block}.attn.proj")
        inputs = normal(states, f"{block}.norm2")
        gate = through(inputs, f"{block}.mlp.w1")
        hidden = gate * sigmoid(gate) * through(inputs, f"{block}.mlp.w2")
        states = states + through(normal(hidden, f"{block}.mlp.ffn_ln"), f"{block}.mlp.w3")
        number += 1
    return through(normal(states[:, 0], "norm"), "head"), entering


def turned(states: Tensor, row: int) -> Tensor:
    """Turn each pair of channels of each patch, as a complex number, by its angle; the class token stays."""
    pairs = torch.view_as_complex(states[:, 1:].reshape(*states[:, 1:].shape[:-1], 32, 2))
    places = torch.arange(row * row)
    speeds = 16 / row / 10_000 ** (torch.arange(16) / 16)
    angles = torch.cat([(places // row)[:, None] * speeds, (places % row)[:, None] * speeds], dim=1)
    found = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    return torch.cat([states[:, :1], found], dim=1)
