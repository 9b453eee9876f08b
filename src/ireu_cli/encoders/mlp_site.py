"""The hidden layer of one transformer block as an edit site, and what enters blocks.

A block of a vision transformer ends with x + fc2(act(fc1(layer_norm2(x)))), the same for every token. SigLIP's pooling
head does the same for the one vector that its probe has gathered. What enters blocks is a tap too, by itself or joined
with others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ConfigError
from ireu_cli.params import Tap, depth_of, parts_of

HEAD = -1
"""Names SigLIP's pooling head in place of a block number."""


@dataclass(frozen=True)
class MlpSite:
    """The hidden layer of one block, given by its number, or of the pooling head."""

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
        """The name of its part in `unlearn.layers` and in manifests."""
        return "head" if self.block == HEAD else f"block:{self.block}"

    @property
    def names(self) -> list[str]:
        """The names of its four tensors."""
        return [self.name(part) for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]

    def attention(self, part: str) -> str:
        """The tensor name of a part of the same block's attention, such as `k_proj.weight`."""
        return f"vision_model.encoder.layers.{self.block}.self_attn.{part}"

    def weights(self, model: Any) -> dict[str, Tensor]:
        """Copies of its four tensors by tensor name: float64, on the CPU."""
        state = self.module(model).state_dict()
        return {self.name(part): tensor.detach().cpu().double().clone() for part, tensor in state.items()}

    def activations(self, model: Any, inputs: Tensor) -> Tensor:
        """Compute the hidden units' outputs (…, n) from the layer's inputs (…, d)."""
        module = self.module(model)
        found: Tensor = module.activation_fn(module.fc1(inputs))
        return found


def after_attention(layer: Any, states: Tensor) -> Tensor:
    """States (n, tokens, d) after the attention of a `CLIPEncoderLayer` and its residual connection."""
    found: Tensor = states + layer.self_attn(layer.layer_norm1(states), attention_mask=None)[0]
    return found


def after_mlp(layer: Any, attended: Tensor) -> Tensor:
    """Take the output of `after_attention`, (n, tokens, d), through the hidden layer and its residual connection.

    It calls the parts one by one, because the layer's own forward has other arguments in other versions of
    transformers.
    """
    found: Tensor = attended + layer.mlp(layer.layer_norm2(attended))
    return found


def before_block(model: Any, block: int) -> AbstractContextManager[list[Tensor]]:
    """Inside it, every forward pass appends a block's input, (n, tokens, d), to the list; -1 is the last block.

    It equals transformers' `hidden_states[block]`, which some versions return only for some models.
    """
    return _entering_module(model.vision_model.encoder.layers[block], gradients=True)


def watching(model: Any, site: MlpSite, *, gradients: bool = False) -> AbstractContextManager[list[Tensor]]:
    """Inside it, every forward pass appends the input of the site's hidden layer, (n, tokens, d), to the list."""
    return _entering_module(site.module(model), gradients=gradients)


def attending(model: Any, block: int, *, gradients: bool = False) -> AbstractContextManager[list[Tensor]]:
    """Inside it, every forward pass appends what a block's attention reads, (n, tokens, d), to the list."""
    return _entering_module(model.vision_model.encoder.layers[block].self_attn, gradients=gradients)


@contextmanager
def detectors_reading(
    model: Any, block: int, *, pooled: bool, gradients: bool = False
) -> Iterator[Callable[[], Tensor]]:
    """Inside it, the function gives what detectors of a block read in the last forward pass: (n, d).

    Args:
        model: the encoder's.
        block: where people are found.
        pooled: whether detectors read the average of what the attention reads of all tokens; else they read the class
            token at the hidden layer.
        gradients: whether gradients pass.
    """
    if pooled:
        with attending(model, block, gradients=gradients) as tokens:
            yield lambda: tokens[-1].mean(1)
    else:
        with watching(model, MlpSite(block), gradients=gradients) as tokens:
            yield lambda: tokens[-1][:, 0]


def refuse_missing(tap: Tap, config: Any) -> None:
    """Refuse parts of a tap that an encoder of these sizes does not have, or cannot join.

    Args:
        tap: the tap.
        config: the encoder's, with `num_hidden_layers`, `hidden_size` and perhaps `projection_dim`.

    Raises:
        ConfigError: a block does not exist, or the projection is not as wide as the tokens.
    """
    blocks, parts = int(config.num_hidden_layers), parts_of(tap)
    for part in parts:
        depth = depth_of(part)
        if depth is not None and depth >= blocks:
            raise ConfigError(
                f"The encoder has no tap {part}: its blocks are block-0 to block-{blocks - 1}",
                "Name blocks that exist with --tap, or in the portrait.json whose generator reads it",
            )
    if "image_embeds" not in parts:
        return
    width = getattr(config, "projection_dim", None)
    if width is None:
        raise ConfigError("The encoder has no tap image_embeds: it has no projection", "Read pooled in its place")
    if len(parts) > 1 and width != config.hidden_size:
        raise ConfigError(
            f"The tap {tap} joins image_embeds, which is {width} wide, with parts that are {config.hidden_size} wide",
            "Join pooled in its place",
        )


def read_parts(model: Any, pixels: Tensor, tap: Tap, named: Callable[[str, Any], Tensor]) -> Tensor:
    """Read all parts of a tap in one pass.

    `penultimate` is what enters the last block.

    Args:
        model: the encoder.
        pixels: (n, 3, side, side), normalised.
        tap: the tap.
        named: gives any other part with a name of its own, by its name, from the output of the vision transformer.

    Returns:
        One part as it is; of several, all tokens one after another, where a part (n, d) is one token: (n, tokens, d).

    Raises:
        ConfigError: the encoder has no such block, or the parts have several widths.
    """
    refuse_missing(tap, model.config)
    depths = {part: -1 if part == "penultimate" else depth_of(part) for part in parts_of(tap)}
    with ExitStack() as stack:
        inputs = {p: stack.enter_context(before_block(model, n)) for p, n in depths.items() if n is not None}
        output = model.vision_model(pixels)
    return joined([inputs[part][0] if part in inputs else named(part, output) for part in parts_of(tap)])


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Several parts of a tap, all tokens one after another, where a part (n, d) is one token; one part as it is."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part[:, None] if part.ndim == 2 else part for part in parts], dim=1)


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
