"""Load vision transformers from their files: weights, sizes and preprocessing, for transformers 4.57 and 5.

This module reads the settings, not transformers, and compares them with the tensors before it builds a model. So a
file's statements decide neither how much is built nor which code runs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.eva.sizes import eva_config
from ireu_cli.encoders.eva.tower import EvaTower
from ireu_cli.encoders.files.checkpoint import WITH_PROJECTION, Checkpoint, open_checkpoint, open_whole
from ireu_cli.encoders.files.hub import address_of, fetched
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.files.settings import checked_settings, told_as_model_error
from ireu_cli.encoders.files.sizes import PROJECTION, disagreement, side_of, told_by
from ireu_cli.encoders.preprocessing import processor_beside
from ireu_cli.encoders.towers import bare, siglip
from ireu_cli.errors import ModelError
from ireu_cli.params import EncoderParams
from ireu_cli.support.bounded import ContentError, printable, read_json

# hidden size -> (heads, activation, published name); ecosystem sizes that tensors alone do not settle.
_KNOWN = {1280: (16, "gelu", "ViT-H/14"), 1664: (16, "gelu", "ViT-bigG/14"), 1024: (16, "quick_gelu", "ViT-L/14")}
_CLIP_TYPES = frozenset({"clip", "clip_vision_model"})
_SIZES_READ = ("hidden_size", "image_size", "intermediate_size", "num_attention_heads", "num_channels", "patch_size")
_READ = (
    *_SIZES_READ,
    "attention_dropout",
    "hidden_act",
    "initializer_factor",
    "initializer_range",
    "layer_norm_eps",
    "num_hidden_layers",
)
"""The keys that are read from a config.json; other keys change how transformers runs a model, not which one it is."""


def encoder_place(source: str) -> Path:
    """The path of the encoder itself: inside its bundle, or the source."""
    bundle = find_bundle(source)
    return Path(source) if bundle is None else bundle.encoder_folder


def whole_at_hand(source: str) -> Checkpoint:
    """Open everything in the file or folder of an encoder, which may hold more than the encoder.

    Raises:
        ModelError: it does not exist or cannot be read; nothing is downloaded.
    """
    place = encoder_place(source)
    if not place.exists():
        address = address_of(source)
        remedy = "Name a file or a folder"
        if address is not None:
            remedy += f", or, for a model of the hub, run `{address.download}` and name the folder that it prints"
        raise ModelError(f"{source} does not exist", remedy)
    return open_whole(place)


def checkpoint_of(params: EncoderParams) -> Checkpoint:
    """Find the weights of an encoder; those of a hub model are in the hub's own cache.

    Raises:
        ModelError: they are nowhere.
    """
    place = encoder_place(params.source)
    return open_checkpoint(place if place.exists() else fetched(params.source, params.revision))


def config_of(checkpoint: Checkpoint) -> Any:
    """The `CLIPVisionConfig` or `SiglipVisionConfig` beside a checkpoint, or the one that its tensors tell.

    Tensors tell everything about EVA02-CLIP, so its `EvaConfig` is never read.

    Raises:
        ModelError: there is neither, or the two do not agree.
    """
    if checkpoint.is_eva:
        return eva_config(checkpoint)
    from transformers import CLIPVisionConfig, SiglipVisionConfig

    is_siglip, told = checkpoint.is_siglip, _told_by(checkpoint)
    found = _settings_beside(checkpoint)
    if found is None:
        try:
            found = siglip.sizes_in(checkpoint) if is_siglip else sizes_in(checkpoint)
        except (KeyError, ValueError):
            raise ModelError(
                f"The sizes of the encoder {checkpoint.source} cannot be told from its tensors",
                "Put its config.json beside it",
            ) from None
    with told_as_model_error(f"The config.json of the encoder {checkpoint.source} cannot be used", "Repair it"):
        # Of a whole CLIP model, it may keep the projection's width to itself; of SigLIP, the head is there.
        more: dict[str, int] = {"vision_use_head": True} if is_siglip else {}
        if "projection" in told:
            more["projection_dim"] = told["projection"]
        config: Any = (SiglipVisionConfig if is_siglip else CLIPVisionConfig)(**(found | more))
    if (wrong := disagreement(vars(config), told, class_token=not is_siglip)) is not None:
        raise ModelError(
            f"The config.json of the encoder {checkpoint.source} does not fit its tensors: {wrong}",
            "Put the right config.json in its place",
        )
    return config


def _told_by(checkpoint: Checkpoint) -> dict[str, int]:
    """The sizes that a checkpoint's tensors tell.

    Raises:
        ModelError: some are missing.
    """
    try:
        told = told_by(checkpoint)
    except ValueError as error:
        raise ModelError(
            f"The encoder {checkpoint.source} is not complete: {error}", "Name a complete encoder"
        ) from None
    if "projection" in checkpoint.anatomy.parts and PROJECTION not in checkpoint:
        raise ModelError(
            f"The encoder {checkpoint.source} lacks {PROJECTION}: it is a vision transformer without its projection",
            WITH_PROJECTION,
        )
    return told


def _settings_beside(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The settings of such a model in the config.json beside the weights; None if there is no such file.

    A lone file may lie beside the config of another model, which is ignored.

    Raises:
        ModelError: the encoder's own folder has the config of another model, or one that cannot be read.
    """
    path, own = checkpoint.config, siglip.MODEL_TYPES if checkpoint.is_siglip else _CLIP_TYPES
    try:
        told = read_json(path, repeats=True)
    except FileNotFoundError:
        return None
    except (ContentError, OSError) as error:
        if checkpoint.source.is_file():
            return None
        raise _not_its_own(checkpoint, getattr(error, "why", "cannot be read")) from None
    kind = told.get("model_type") if isinstance(told, dict) else None
    if checkpoint.source.is_file() and kind not in own:
        return None
    named = told.get("transformers_weights") if isinstance(told, dict) else None
    if named is not None and named not in {part.path.name for part in checkpoint.parts}:
        raise _not_its_own(checkpoint, f"makes transformers load other weights, {printable(named, 40)}")
    if not isinstance(told, dict) or (checkpoint.is_siglip and kind not in own):
        raise _not_its_own(checkpoint, f"is for a model of the type {printable(kind, 40)}")
    whole = checked_settings(told, path)
    vision = whole.get("vision_config", whole) if checkpoint.is_siglip or kind == "clip" else whole
    if not isinstance(vision, dict):
        raise _not_its_own(checkpoint, "has no settings of a vision transformer")
    # Without a projection, its width is a number that nobody reads; an export has it as the original does.
    read = (*_READ, "projection_dim") if checkpoint.is_bare else _READ
    return {key: vision[key] for key in read if vision.get(key) is not None}


def _not_its_own(checkpoint: Checkpoint, why: str) -> ModelError:
    return ModelError(
        f"The config.json of the encoder {checkpoint.source} cannot be used: it {why}",
        "Put the right config.json in its place",
    )


def outline_of(checkpoint: Checkpoint) -> Any:
    """Build the model without its weights, after checking that the checkpoint has all of them.

    Raises:
        ModelError: weights are missing or quantised.
    """
    config, kind = config_of(checkpoint), _class_of(checkpoint)
    with (
        told_as_model_error(f"The config.json beside {checkpoint.source} describes no encoder", "Repair it"),
        torch.device("meta"),
    ):
        model = kind(config)
    state = model.state_dict()
    if missing := sorted(name for name in state if name not in checkpoint):
        raise ModelError(
            f"The encoder {checkpoint.source} lacks {len(missing)} weights, first {missing[0]}",
            "Name a complete encoder",
        )
    if wrong := next((name for name, tensor in state.items() if checkpoint.shape(name) != tuple(tensor.shape)), None):
        raise ModelError(
            f"The tensors of {checkpoint.source} do not fit the shapes in its config.json, first {wrong}",
            "Put the right config.json beside it",
        )
    checkpoint.refuse_quantised(state)
    return model


def _class_of(checkpoint: Checkpoint) -> Any:
    """The class of the model that a checkpoint is read into."""
    from transformers import CLIPVisionModelWithProjection

    if checkpoint.is_eva:
        return EvaTower
    if checkpoint.is_siglip:
        return siglip.SiglipTower
    return bare.BareTower if checkpoint.is_bare else CLIPVisionModelWithProjection


def from_checkpoint(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load model and processor from files; weights in single precision stay memory-mapped.

    Raises:
        ModelError: they cannot be read, or lack weights.
    """
    model = outline_of(checkpoint)
    fill(model, {name: checkpoint[name].to(torch.float32) for name in sorted(model.state_dict())})
    return model, processor_beside(checkpoint, model.config.image_size)


def fill(model: Any, state: Mapping[str, Tensor]) -> None:
    """Give tensors to a model without weights."""
    model.load_state_dict(state, assign=True)
    if isinstance(model, EvaTower):
        return
    # The one buffer of transformers' models, which no file holds.
    embeddings = model.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=next(iter(state.values())).device)[None]


def sizes_in(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a `CLIPVisionConfig`: sizes from the tensors, heads and activation from published encoders.

    Raises:
        KeyError: no published encoder has that width.
        ValueError: tensors are missing, or do not fit each other.
    """
    told = told_by(state)
    heads, activation, _ = _KNOWN[told["hidden"]]
    return {
        "hidden_size": told["hidden"],
        "patch_size": told["patch"],
        "image_size": side_of(told, class_token=True),
        "num_hidden_layers": told["blocks"],
        "intermediate_size": told["intermediate"],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }
