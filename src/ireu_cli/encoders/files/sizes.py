"""Sizes of a vision transformer: those its tensors tell, those its settings state, and whether the two agree.

They are compared before anything is built. So time and memory depend on the file, not on a number that it states.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ireu_cli.support.bounded import printable

PATCHES = "vision_model.embeddings.patch_embedding.weight"
"""A tensor that every vision transformer in transformers has, of CLIP and of SigLIP."""
_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_HIDDEN_LAYER = "vision_model.encoder.layers.0.mlp.fc1.weight"
PROJECTION = "visual_projection.weight"
_BLOCK = re.compile(r"vision_model\.encoder\.layers\.(\d{1,5})\.")
_NUMBERS = {
    "hidden_size": "hidden",
    "intermediate_size": "intermediate",
    "num_hidden_layers": "blocks",
    "num_channels": "channels",
    "patch_size": "patch",
}
"""The key of each size in the settings, and the name of that size among those that tensors tell."""


def blocks_in(names: Iterable[str]) -> int:
    """Count the blocks that tensors belong to.

    Raises:
        ValueError: there are none, or one in between is missing.
    """
    found = {int(match[1]) for name in names if (match := _BLOCK.match(name))}
    if not found or found != set(range(len(found))):
        lacking = next(number for number in range(len(found) + 1) if number not in found)
        raise ValueError(f"there is no block {lacking}")
    return len(found)


def told_by(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes that tensors tell: hidden, channels, patch, places, blocks, intermediate, and for CLIP the projection.

    Raises:
        ValueError: a tensor is missing, or has the wrong number of dimensions.
    """
    shapes = {}
    for name, count in ((PATCHES, 4), (_POSITIONS, 2), (_HIDDEN_LAYER, 2), (PROJECTION, 2)):
        if name in state:
            shapes[name] = tuple(state[name].shape)
            if len(shapes[name]) != count or 0 in shapes[name]:
                raise ValueError(f"{name} has the shape {shapes[name]}")
        elif name != PROJECTION:
            raise ValueError(f"{name} is missing")
    hidden, channels, patch, _ = shapes[PATCHES]
    told = {
        "hidden": hidden,
        "channels": channels,
        "patch": patch,
        "places": shapes[_POSITIONS][0],
        "blocks": blocks_in(state),
        "intermediate": shapes[_HIDDEN_LAYER][0],
    }
    return told | ({"projection": shapes[PROJECTION][0]} if PROJECTION in shapes else {})


def disagreement(settings: Mapping[str, Any], told: Mapping[str, int], *, class_token: bool) -> str | None:
    """How the settings of a transformer differ from its tensors, in words; None if they agree.

    Args:
        settings: every entry of a `CLIPVisionConfig` or `SiglipVisionConfig` that is a size.
        told: see `told_by`.
        class_token: whether one of the places belongs to a class token.
    """
    for key, name in _NUMBERS.items():
        if type(settings.get(key)) is not int or settings[key] != told[name]:
            return f"{key} is {printable(settings.get(key), 24)}, and the tensors say {told[name]}"
    side, heads = settings.get("image_size"), settings.get("num_attention_heads")
    if type(side) is not int or side < 1 or (side // told["patch"]) ** 2 + class_token != told["places"]:
        return f"image_size is {printable(side, 24)}, and the tensors have {told['places']} places"
    if type(heads) is not int or heads < 1 or told["hidden"] % heads:
        return f"num_attention_heads is {printable(heads, 24)}, for {told['hidden']} features"
    epsilon = settings.get("layer_norm_eps")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        return f"layer_norm_eps is {printable(epsilon, 24)}"
    return None


def side_of(told: Mapping[str, int], *, class_token: bool) -> int:
    """The side of the picture, in pixels, if patches leave no margin.

    Raises:
        ValueError: the places form no square.
    """
    row = math.isqrt(told["places"] - class_token)
    if row**2 + class_token != told["places"]:
        raise ValueError(f"{told['places']} places form no square")
    return row * told["patch"]
