"""Folders of DINOv2: how they are told from others, and whether their settings fit the tensors beside them."""

import math
import re
from pathlib import Path
from typing import Any

import torch

from ireu_cli.encoders.dinov2.tower import Dinov2, Dinov2Sizes
from ireu_cli.encoders.files.checkpoint import Checkpoint, open_whole
from ireu_cli.encoders.files.settings import read_settings
from ireu_cli.encoders.files.tensor_file import SAFE
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import ContentError, printable, read_json

CONFIG = "config.json"
_TYPE = "dinov2"
_BLOCK = re.compile(r"encoder\.layer\.(\d{1,3})\.")
_REMEDY = "Name a folder of a Dinov2Model as published, such as facebook/dinov2-large"


def folder_of(source: str) -> Path | None:
    """The folder of such a model, named itself or by the file of its weights."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent if path.suffix.lower() in SAFE and path.is_file() else None
    if folder is None:
        return None
    try:
        told = read_json(folder / CONFIG, repeats=True)
    except (ContentError, OSError):
        return None
    return folder if isinstance(told, dict) and told.get("model_type") == _TYPE else None


def open_folder(source: str) -> tuple[Checkpoint, Dinov2Sizes]:
    """The weights in a folder, all of which are there, and the sizes of the encoder.

    Raises:
        ModelError: they are not, or the settings do not fit them.
    """
    folder = folder_of(source)
    if folder is None:
        raise ModelError(f"{source} does not hold a DINOv2 vision transformer", _REMEDY)
    whole, told = open_whole(folder), read_settings(folder / CONFIG)
    try:
        sizes = _sizes(whole, told)
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in Dinov2(sizes).state_dict().items()}
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        why = f": {error.args[0]}" if type(error) is ValueError else ""
        raise ModelError(
            f"The {CONFIG} of {folder} does not fit the tensors beside it{why}", "Put the right one in its place"
        ) from None
    if odd := sorted(name for name, shape in wanted.items() if name not in whole or whole.shape(name) != shape):
        raise ModelError(f"The encoder {source} lacks {printable(odd[0])}, or has it in another shape", _REMEDY)
    if more := sorted(set(whole) - set(wanted)):
        raise ModelError(f"{source} holds {printable(more[0])}, which a Dinov2Model does not have", _REMEDY)
    whole.refuse_quantised(wanted)
    return whole, sizes


def _sizes(whole: Checkpoint, told: dict[str, Any]) -> Dinov2Sizes:
    """The sizes that tensors tell, and what only settings tell.

    Raises:
        ValueError: they do not agree; the first argument says where.
        KeyError, IndexError, TypeError: a tensor is missing, or has another number of dimensions.
    """
    width, _, patch, _ = whole.shape("embeddings.patch_embeddings.projection.weight")
    numbers = {int(match[1]) for name in whole if (match := _BLOCK.match(name))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError("a block is missing")
    gated = "encoder.layer.0.mlp.weights_out.weight" in whole
    inner = whole.shape(f"encoder.layer.0.mlp.{'weights_out' if gated else 'fc2'}.weight")[1]
    places = whole.shape("embeddings.position_embeddings")[1] - 1
    heads, epsilon = told.get("num_attention_heads"), told.get("layer_norm_eps", 1e-6)
    agreed = {"hidden_size": width, "num_hidden_layers": len(numbers), "patch_size": patch, "use_swiglu_ffn": gated}
    if wrong := next((key for key, value in agreed.items() if told.get(key, value) != value), None):
        raise ValueError(f"{wrong} is {printable(told[wrong], 24)}, and the tensors say {agreed[wrong]}")
    if type(heads) is not int or heads < 1 or not width or width % heads:
        raise ValueError(f"num_attention_heads is {printable(heads, 24)}, for {width} features")
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise ValueError(f"layer_norm_eps is {printable(epsilon, 24)}")
    if told.get("hidden_act", "gelu") != "gelu" or not told.get("qkv_bias", True):
        raise ValueError("it has another activation, or no bias in its attention")
    if not patch or not inner or places < 1 or math.isqrt(places) ** 2 != places:
        raise ValueError(f"{places} places form no square, or a size is zero")
    return Dinov2Sizes(
        width, inner, len(numbers), heads, patch, places, epsilon, gated, "embeddings.mask_token" in whole
    )
