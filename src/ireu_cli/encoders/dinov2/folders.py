"""The family of DINOv2's vision transformers: how their folders are told from others, loaded, and what is said."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.dinov2.encoder import CONFIG, PROCESSOR, Dinov2Encoder, filled
from ireu_cli.encoders.dinov2.tower import Dinov2, Dinov2Sizes
from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.checkpoint import Checkpoint, open_whole
from ireu_cli.encoders.files.fingerprint import fingerprint_from, prints_by
from ireu_cli.encoders.files.settings import read_settings
from ireu_cli.encoders.files.tensor_file import SAFE
from ireu_cli.encoders.groups import groups_of_dinov2
from ireu_cli.encoders.preprocessing import processor_in
from ireu_cli.encoders.reach import DINOV2, reach_of
from ireu_cli.errors import ModelError
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import EncoderParams
from ireu_cli.support.bounded import ContentError, printable, read_json
from ireu_cli.values import DTYPES

_TYPE = "dinov2"
_BLOCK = re.compile(r"encoder\.layer\.(\d{1,3})\.")
_SIZE, _CROP = 256, 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The published preprocessing: shrink, cut the middle out, scale as for ImageNet."""
_REMEDY = "Name a folder of a Dinov2Model as published, such as facebook/dinov2-large"


def _place(source: str) -> Path | None:
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


def _opened(source: str) -> tuple[Checkpoint, Dinov2Sizes]:
    """The weights in a folder, all of which are there, and the sizes of the encoder.

    Raises:
        ModelError: they are not, or the settings do not fit them.
    """
    folder = _place(source)
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


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> Dinov2Encoder:
    del landmarks
    whole, sizes = _opened(params.source)
    prints = prints_by(list(whole), whole.__getitem__)
    if not all(one.is_finite for one in prints.values()):
        raise ModelError(
            f"The encoder {params.source} holds values that are not finite numbers", "Use an undamaged copy"
        )
    try:
        place = torch.device(device)
        state = {name: whole[name].float().to(place) for name in whole}
    except (RuntimeError, AssertionError):
        raise ModelError(f"The device {device} cannot be used", "Correct --device") from None
    usual = {
        "size": {"shortest_edge": _SIZE},
        "crop_size": {"height": _CROP, "width": _CROP},
        "image_mean": list(_MEAN),
        "image_std": list(_DEVIATION),
        "resample": 3,
    }
    processor = processor_in(whole.source, "Bit", usual, _CROP)
    paths = [whole.source / name for name in (CONFIG, PROCESSOR)]
    beside = {path.name: path.read_bytes() for path in paths if path.is_file()}
    model = filled(sizes, state, DTYPES[params.dtype])
    side = _side_of(processor, sizes.patch, params.source)
    return Dinov2Encoder(model, processor, fingerprint_from(prints), whole, beside, side)


def _side_of(processor: Any, patch: int, source: str) -> int:
    """The side of the squares that a processor makes, whatever a picture's shape, in whole patches.

    Raises:
        ModelError: it makes others.
    """
    pictures = [np.zeros((300, 300, 3), np.uint8), np.zeros((100, 301, 3), np.uint8)]
    try:
        _, _, height, side = processor(images=pictures, return_tensors="pt")["pixel_values"].shape
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - settings that do not go together end in errors of every kind
        height, side = 0, 1
    if height != side or side % patch:
        raise ModelError(
            f"The {PROCESSOR} beside {source} does not make squares of whole patches",
            "Put the right one beside it, or remove it",
        )
    return int(side)


def _card(source: str) -> Card:
    whole, sizes = _opened(source)
    blocks, start = sizes.blocks, "vision_model.encoder.layers."
    parts = {
        f"blocks 0 to {blocks - 2}": f"{start}0.",
        f"block {blocks - 1}": f"{start}{blocks - 1}.",
        "post_layernorm": DINOV2.parts["post_layernorm"],
    }
    return Card(
        kind=DINOV2.kind,
        layout=plain_layout(DINOV2.family, folder=True).name,
        architecture=f"{sizes.width} wide, {blocks} blocks, patches of {sizes.patch}, "
        f"{'gated hidden layers' if sizes.is_gated else 'gelu'}",
        dtype=" and ".join(whole.dtypes(whole)),
        parameters=sum(whole[name].numel() for name in whole),
        fingerprint=fingerprint_from(prints_by(list(whole), whole.__getitem__)),
        groups=groups_of_dinov2(sizes),
        taps=DINOV2.taps,
        sites={part: reach_of([name + "x"], blocks, DINOV2).taps for part, name in parts.items()},
    )


DINOV2_TRANSFORMERS = Family(
    title="vision transformer of DINOv2",
    taps=DINOV2.taps,
    sources="a folder of DINOv2",
    place=_place,
    load=_load,
    card=_card,
    library="transformers",
    held_as=DINOV2.family,
    has_depths=True,
)
