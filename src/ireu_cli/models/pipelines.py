"""Whole diffusers pipelines in folders, with an IP-Adapter mounted and without an encoder: SD, SDXL, FLUX."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ModelError

_LEFT_OUT = ("image_encoder", "feature_extractor", "safety_checker")
"""Parts that are not loaded: features are handed in, and every picture is wanted."""
_INDEX = "model_index.json"


def open_pipeline(folder: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Load a pipeline as its users do, and mount the adapter.

    Args:
        folder: what `save_pretrained` wrote, with weights in safetensors.
        adapter: a file that `load_ip_adapter` takes: safetensors, or an archive of plain tensors.
        dtype: of the weights.
        device: torch device.

    Raises:
        ModelError: the pipeline takes no IP-Adapter, a part of it lacks weights, or the adapter reads two encoders.
        OSError, ValueError, KeyError, RuntimeError, AttributeError: diffusers cannot load it.
    """
    from diffusers import DiffusionPipeline

    index = _parts_of(folder)
    given: dict[str, Any] = {part: None for part in _LEFT_OUT if part in index}
    given |= {part: _model(folder / part, *names) for part, names in index.items() if part not in _LEFT_OUT}
    pipeline: Any = DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, **{part: model for part, model in given.items() if model is not _NO_MODEL}
    )
    if not hasattr(pipeline, "load_ip_adapter"):
        raise ModelError(
            f"{type(pipeline).__name__} of diffusers takes no IP-Adapter", "Name a pipeline with load_ip_adapter"
        )
    encoder = "image_encoder_pretrained_model_name_or_path" if is_flux(pipeline) else "image_encoder_folder"
    pipeline.load_ip_adapter(
        str(adapter.parent), subfolder="", weight_name=adapter.name, low_cpu_mem_usage=False, **{encoder: None}
    )
    _refuse_two_encoders(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    # Layers of the adapter come in single precision.
    pipeline = pipeline.to(torch.device(device), dtype)
    _keep_upcast(pipeline)
    return pipeline


def is_flux(pipeline: Any) -> bool:
    """Whether a pipeline takes IP-Adapters as FLUX does."""
    from diffusers.loaders import FluxIPAdapterMixin

    return isinstance(pipeline, FluxIPAdapterMixin)


def side_of(pipeline: Any) -> int:
    """The side of the pictures that a pipeline draws by itself, in pixels."""
    sample = getattr(pipeline, "default_sample_size", None)
    if sample is None:
        sample = pipeline.unet.config.sample_size
    return int(sample) * int(pipeline.vae_scale_factor)


def embeds_for(pipeline: Any, feature: Tensor, null: Tensor, guidance: float) -> dict[str, Any]:
    """The arguments by which a pipeline takes the features of one photo, and the null features under guidance.

    Args:
        pipeline: with an IP-Adapter.
        feature: (d,) or (tokens, d).
        null: the same.
        guidance: above 1, both go in.
    """
    one, other = (part.to(pipeline.device, pipeline.dtype)[None] for part in (feature, null))
    if is_flux(pipeline):
        # Without null features it encodes a black picture itself, whether it is used or not.
        return {
            "ip_adapter_image_embeds": [one[None]],
            "negative_ip_adapter_image_embeds": [other[None]],
            "negative_prompt": "" if guidance > 1 else None,
            "true_cfg_scale": guidance,
        }
    sent = [other, one] if guidance > 1 else [one]
    return {"ip_adapter_image_embeds": [torch.stack(sent)], "guidance_scale": guidance}


def digest_of_files(folder: Path, adapter: Path) -> str:
    """SHA-256 (hex) over everything that decides a picture of a pipeline in a folder."""
    digest = hashlib.sha256()
    places = [folder / part for part in _parts_of(folder) if part not in _LEFT_OUT]
    inside = {path.relative_to(folder).as_posix(): path for place in places for path in place.rglob("*")}
    for name, path in [(_INDEX, folder / _INDEX), *sorted(inside.items()), ("adapter", adapter)]:
        if path.is_file() and not path.name.startswith("."):
            with path.open("rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


_NO_MODEL = object()


def _parts_of(folder: Path) -> dict[str, tuple[str, str]]:
    """The parts that a pipeline's index names, each with the library and the class of it."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return {part: (value[0], value[1]) for part, value in index.items() if isinstance(value, list) and value[0]}


def _model(folder: Path, library: str, name: str) -> Any:
    """A part with weights, all of which its files have: what they lack would be random numbers.

    Raises:
        ModelError: they have not.
    """
    if library not in {"diffusers", "transformers"}:
        return _NO_MODEL
    kind = getattr(importlib.import_module(library), name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        return _NO_MODEL
    loader: Any = kind
    model, info = loader.from_pretrained(folder, output_loading_info=True, local_files_only=True, use_safetensors=True)
    if info["missing_keys"]:
        raise ModelError(f"The {folder.name} of the pipeline {folder.parent} lacks weights", "Use an undamaged copy")
    return model


def _keep_upcast(pipeline: Any) -> None:
    """Leave a decoder in single precision that the pipeline would take there and back with every picture.

    Gradients could not find their way back through weights that have changed since. Latents are scaled in half
    precision then, so that the last bits of a picture may differ.
    """
    vae = pipeline.vae
    if vae.dtype != torch.float16 or not getattr(vae.config, "force_upcast", False):
        return
    vae.float()
    decode = vae.decode
    vae.decode = lambda latents, *rest, **named: decode(latents.to(vae.dtype), *rest, **named)


def _refuse_two_encoders(pipeline: Any) -> None:
    body: Any = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    for layer in getattr(body.encoder_hid_proj, "image_projection_layers", ()):
        if "FaceIDPlus" in type(layer).__name__:
            raise ModelError(
                "This adapter reads a face-embedding network and an image encoder, and one of them is edited at a time",
                "Name an adapter that reads one encoder",
            )
