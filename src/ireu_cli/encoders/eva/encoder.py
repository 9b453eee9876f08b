"""The adapter of EVA02-CLIP's vision transformers, as PuLID, ConsisID and what is built on them read it.

They read what enters blocks 4, 8, 12, 16 and 20, and the head: `block-4` to `block-20`, and `image_embeds`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.mlp_site import joined, refuse_missing
from ireu_cli.encoders.reach import EVA, Anatomy
from ireu_cli.params import Tap, depth_of, parts_of


@dataclass(frozen=True)
class EvaEncoder(Encoder):
    """A loaded encoder; its model is an `EvaTower`."""

    noun = "a vision transformer of EVA02-CLIP"
    no_detectors = "generators read it from block 4 on, and detectors late in it would leave what they read there"

    @property
    def anatomy(self) -> Anatomy:
        """That of EVA02-CLIP."""
        return EVA

    @property
    def architecture(self) -> str:
        """Describe the transformer in short, by its sizes."""
        c = self.model.config
        return (
            f"eva02-vit {c.hidden_size}x{c.num_hidden_layers} patch {c.patch_size} image {c.image_size} "
            f"proj {c.projection_dim}"
        )

    def null_features(self, tap: Tap) -> Tensor:
        """Zeros: under guidance, PuLID and ConsisID are sent them in place of everything that they read."""
        return torch.zeros_like(super().null_features(tap))

    @staticmethod
    def read(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        """Pixels (n, 3, side, side) to a tap, of one pass.

        Returns:
            (n, hidden) for pooled, (n, projection) for image_embeds, (n, tokens, hidden) for all others and for joined
            ones.

        Raises:
            ConfigError: the encoder has no such block, or the parts have several widths.
        """
        refuse_missing(tap, model.config)
        parts, blocks = parts_of(tap), int(model.config.num_hidden_layers)
        depths = {part: _depth(part, blocks) for part in parts}
        states = model(pixels, set(depths.values()))
        return joined([_behind(model, states[depths[part]], part) for part in parts])

    @staticmethod
    def behind_blocks(model: Any, states: Tensor, tap: Tap) -> Tensor:
        """Turn the output of the last block that a tap needs, (n, tokens, hidden), into the tap, (n, …, d)."""
        return _behind(model, states, tap)

    @staticmethod
    def last_state(model: Any, pixels: Tensor) -> Tensor:
        """The class token behind the last block: (n, hidden)."""
        return EvaEncoder.read(model, pixels, "last")[:, 0]

    @staticmethod
    def read_out(model: Any, states: Tensor, tap: Tap) -> Tensor:
        """Turn `last_state`, (n, hidden) on the CPU, into `pooled` or `image_embeds`: (n, k) there."""
        weight = model.norm.weight
        with torch.inference_mode():
            return _behind(model, states[:, None].to(weight.device, weight.dtype), tap).float().cpu()

    @staticmethod
    def readout_inverse(model: Any, tap: Tap) -> Tensor:
        """Invert what follows the last layer norm's normalisation: float64 (hidden, k)."""
        scale = model.norm.weight.detach().cpu().double()
        if tap == "pooled":
            return torch.diag(1 / scale)
        inverse: Tensor = torch.linalg.pinv(model.head.weight.detach().cpu().double() * scale)
        return inverse

    @staticmethod
    def layers(model: Any) -> Any:
        """Its blocks, in order."""
        return model.blocks

    @staticmethod
    def through(layer: Any, states: Tensor) -> Tensor:
        """Pass tokens (n, tokens, hidden) through a block."""
        found: Tensor = layer(states)
        return found


def _depth(part: Tap, blocks: int) -> int:
    """The block whose input a part is, or is computed from; the number of blocks for what leaves the last one."""
    depth = blocks - 1 if part == "penultimate" else depth_of(part)
    return blocks if depth is None else depth


def _behind(model: Any, states: Tensor, part: Tap) -> Tensor:
    if part not in {"pooled", "image_embeds"}:
        return states
    pooled: Tensor = model.norm(states[:, 0])
    found: Tensor = pooled if part == "pooled" else model.head(pooled)
    return found
