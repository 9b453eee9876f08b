"""The adapter of SigLIP's vision transformers (`SiglipVisionModel` of transformers 4.57 and 5).

No token stands for the whole picture. After the last block and a layer norm of all tokens, a learnt probe gathers them
by attention, and a hidden layer of its own turns the result into the pooled vector (transformers, models/siglip).
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ireu_cli.encoders.files.sizes import side_of, told_by
from ireu_cli.encoders.mlp_site import read_parts
from ireu_cli.encoders.towers.tower import PREFIXES, Tower
from ireu_cli.params import Tap

MODEL_TYPES = frozenset({"siglip", "siglip_vision_model"})
MARKS = ("head.probe", "embeddings.patch_embedding.bias")
"""Tensors that no other vision transformer has; they identify one."""
PARTS = ("embeddings.", "encoder.", "post_layernorm.", "head.")
_KNOWN = {1152: (16, "gelu_pytorch_tanh"), 768: (12, "gelu_pytorch_tanh")}
"""For the hidden sizes of so400m and base: their heads and activation, which tensors do not tell."""
_SIDES = {27: 384}
"""If patches leave a margin, their number in a row does not tell the side of the picture: so400m-patch14-384."""


class SiglipTower(Tower):
    """The vision transformer."""

    def __init__(self, config: Any) -> None:
        """Build it with random weights, from a `SiglipVisionConfig`."""
        from transformers import SiglipVisionModel

        super().__init__(SiglipVisionModel(config))


def read_tap(model: SiglipTower, pixels: Tensor, tap: Tap) -> Tensor:
    """The tensor that a generator reads: (n, hidden) for pooled, (n, patches, hidden) for the others.

    `last` comes after the layer norm of all tokens, like `last_hidden_state`. Several taps come of one pass, as (n, sum
    of the parts' tokens, hidden).

    Raises:
        ConfigError: the encoder has no such block.
    """

    def named(part: str, output: Any) -> Tensor:
        found: Tensor = output.last_hidden_state if part == "last" else output.pooler_output
        return found

    return read_parts(model, pixels, tap, named)


def behind_blocks(model: SiglipTower, states: Tensor, tap: Tap) -> Tensor:
    """Turn the output of the last block that a tap needs, (n, patches, hidden), into the tap."""
    if tap == "penultimate":
        return states
    last: Tensor = model.vision_model.post_layernorm(states)
    found: Tensor = last if tap == "last" else model.vision_model.head(last)
    return found


def sizes_in(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a `SiglipVisionConfig`: sizes from the tensors, and the rest from published encoders.

    Raises:
        KeyError: no published encoder has that width.
        ValueError: tensors are missing, or do not fit each other.
    """
    told = told_by(state)
    heads, activation = _KNOWN[told["hidden"]]
    side = side_of(told, class_token=False)
    return {
        "hidden_size": told["hidden"],
        "num_channels": told["channels"],
        "patch_size": told["patch"],
        "image_size": _SIDES.get(side // told["patch"], side),
        "num_hidden_layers": told["blocks"],
        "intermediate_size": told["intermediate"],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def lacks_head(names: Collection[str]) -> bool:
    """Whether there is a SigLIP without its pooling head."""
    head, patches = MARKS
    return any(f"{start}{patches}" in names and f"{start}{head}" not in names for start in PREFIXES)


def usual_processor(kind: Any, side: int) -> Any:
    """The published preprocessing: the whole picture, whatever its shape, at the model's side."""
    return kind(size={"height": side, "width": side})


def prepares(settings: Any, side: int) -> bool:
    """Whether a preprocessor_config.json is SigLIP's, for pictures of that side; other kinds cut pictures."""
    return isinstance(settings, Mapping) and settings.get("size") == {"height": side, "width": side}
