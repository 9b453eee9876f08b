"""The adapter of SigLIP's vision transformers (`SiglipVisionModel` of transformers 4.57 and 5).

No token stands for the whole picture: behind the last block and a layer norm of all tokens, a learnt probe gathers them
by attention, and a hidden layer of its own makes of that the pooled vector (transformers, models/siglip).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ireu_cli.params import Tap

MARKS = ("head.probe", "embeddings.patch_embedding.bias")
"""Tensors that no other vision transformer has, by which one is told."""
PARTS = ("embeddings.", "encoder.", "post_layernorm.", "head.")
_KNOWN = {1152: (16, "gelu_pytorch_tanh")}
"""Hidden size of so400m: its heads and activation, which tensors do not tell."""
_SIDES = {27: 384}
"""Where patches leave a margin, their number in a row does not tell the side of the picture: so400m-patch14-384."""


class SiglipTower(nn.Module):
    """The vision transformer below one name, `vision_model`, as files have it; transformers 5 has no such level."""

    def __init__(self, config: Any) -> None:
        """Build it with random weights, from a `SiglipVisionConfig`."""
        from transformers import SiglipVisionModel

        super().__init__()
        model = SiglipVisionModel(config)
        self.config = config
        self.vision_model = getattr(model, "vision_model", model)


def read_tap(model: SiglipTower, pixels: Tensor, tap: Tap) -> Tensor:
    """What a generator reads: (n, hidden) for pooled, (n, patches, hidden) for penultimate and last.

    `last` is behind the layer norm of all tokens, as `last_hidden_state` is.
    """
    output = model.vision_model(pixels, output_hidden_states=tap == "penultimate")
    if tap == "penultimate":
        return _tensor(output.hidden_states[-2])
    return _tensor(output.last_hidden_state if tap == "last" else output.pooler_output)


def behind_blocks(model: SiglipTower, states: Tensor, tap: Tap) -> Tensor:
    """From what the last block that a tap needs puts out, (n, patches, hidden), to the tap."""
    if tap == "penultimate":
        return states
    last: Tensor = model.vision_model.post_layernorm(states)
    return last if tap == "last" else _tensor(model.vision_model.head(last))


def config_from(told: Mapping[str, Any]) -> Any:
    """The `SiglipVisionConfig` in a config.json, of the vision transformer alone or of a whole model."""
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig.from_dict(dict(told.get("vision_config", told)))


def sizes_in(state: Mapping[str, Tensor], blocks: int) -> dict[str, Any]:
    """The settings of a `SiglipVisionConfig` that tensors tell, and what they do not tell of published encoders.

    Raises:
        KeyError: tensors are missing, or no published encoder is so wide.
    """
    hidden, channels, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    row = round(state["vision_model.embeddings.position_embedding.weight"].shape[0] ** 0.5)
    heads, activation = _KNOWN[hidden]
    return {
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": patch,
        "image_size": _SIDES.get(row, row * patch),
        "num_hidden_layers": blocks,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def prefix_in(names: Iterable[str]) -> str | None:
    """What the encoder's names begin with in a file, such as `vision_model.` or nothing; None where there is none."""
    known, first = set(names), MARKS[0]
    ends = (name.removesuffix(first) for name in known if name.endswith(first))
    return next((start for start in ends if all(f"{start}{mark}" in known for mark in MARKS)), None)


def usual_processor(kind: Any, side: int) -> Any:
    """The published preprocessing: the whole picture, whatever its shape, at the model's side."""
    return kind(size={"height": side, "width": side})


def processor_class() -> Any:
    """The Pillow processor under either name: its results do not depend on torchvision being installed."""
    import transformers

    return getattr(transformers, "SiglipImageProcessorPil", None) or transformers.SiglipImageProcessor


def _tensor(value: Tensor) -> Tensor:
    return value
