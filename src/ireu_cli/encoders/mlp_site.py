"""The hidden layer of one transformer block as an edit site: what enters it, what its units do, what its weights are.

A block of a vision transformer ends with x + fc2(act(fc1(layer_norm2(x)))), the same for every token. So does SigLIP's
pooling head, for the one vector that its probe has gathered.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HEAD = -1
"""Stands for SigLIP's pooling head where the numbers of blocks stand."""


@dataclass(frozen=True)
class MlpSite:
    """One block's hidden layer, by the block's number, or that of the pooling head."""

    block: int

    def module(self, model: Any) -> Any:
        """The `CLIPMLP` of a `CLIPVisionModelWithProjection`, or the `SiglipMLP` of a `SiglipTower`."""
        vision = model.vision_model
        return vision.head.mlp if self.block == HEAD else vision.encoder.layers[self.block].mlp

    def name(self, part: str) -> str:
        """The tensor name of `fc1.weight` (n, d), `fc1.bias` (n,), `fc2.weight` (d, n) or `fc2.bias` (d,)."""
        place = "head" if self.block == HEAD else f"encoder.layers.{self.block}"
        return f"vision_model.{place}.mlp.{part}"

    @property
    def part(self) -> str:
        """What `unlearn.layers` calls the part that it belongs to, and manifests."""
        return "head" if self.block == HEAD else f"block:{self.block}"

    @property
    def names(self) -> list[str]:
        """The names of its four tensors."""
        return [self.name(part) for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]

    def attention(self, part: str) -> str:
        """The tensor name of a part of the same block's attention, such as `k_proj.weight`."""
        return f"vision_model.encoder.layers.{self.block}.self_attn.{part}"

    def weights(self, model: Any) -> dict[str, Tensor]:
        """Its four tensors by tensor name: float64, on the CPU, copies."""
        state = self.module(model).state_dict()
        return {self.name(part): tensor.detach().cpu().double().clone() for part, tensor in state.items()}

    def activations(self, model: Any, inputs: Tensor) -> Tensor:
        """What the hidden units put out: inputs (…, d) of the layer to (…, n)."""
        module = self.module(model)
        found: Tensor = module.activation_fn(module.fc1(inputs))
        return found


def after_attention(layer: Any, states: Tensor) -> Tensor:
    """States (n, tokens, d) behind the attention of a `CLIPEncoderLayer` and its residual connection."""
    found: Tensor = states + layer.self_attn(layer.layer_norm1(states), attention_mask=None)[0]
    return found


def after_mlp(layer: Any, attended: Tensor) -> Tensor:
    """What `after_attention` gives, (n, tokens, d), behind the layer's hidden layer and its residual connection.

    By its parts, as the layer's own forward has other arguments in other versions of transformers.
    """
    found: Tensor = attended + layer.mlp(layer.layer_norm2(attended))
    return found


def entering(model: Any, pixels: Tensor, block: int) -> Tensor:
    """What enters a block: pixels (n, 3, side, side) to (n, tokens, d), on the model's device."""
    with torch.inference_mode(), before_block(model, block) as seen:
        model.vision_model(pixels)
    return seen[0]


def before_block(model: Any, block: int) -> AbstractContextManager[list[Tensor]]:
    """Within it, every forward pass leaves what enters a block, (n, tokens, d), in the list; -1 is the last block.

    That is transformers' `hidden_states[block]`, which some of its versions hand out in some models alone.
    """
    return _entering_module(model.vision_model.encoder.layers[block], gradients=True)


def watching(model: Any, site: MlpSite, *, gradients: bool = False) -> AbstractContextManager[list[Tensor]]:
    """Within it, every forward pass leaves what enters the site's hidden layer, (n, tokens, d), in the list."""
    return _entering_module(site.module(model), gradients=gradients)


@contextmanager
def _entering_module(module: Any, *, gradients: bool) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(_module: Any, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        states = given[0] if given else named["hidden_states"]
        seen.append(states if gradients else states.detach())

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
