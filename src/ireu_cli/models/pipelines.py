"""Whole diffusers pipelines in folders, with an IP-Adapter mounted and without an encoder: SD, SDXL, FLUX."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ModelError

_LEFT_OUT = ("image_encoder", "feature_extractor", "safety_checker")
"""Parts that are not loaded: features are handed in, and every picture is wanted."""
_PASSED_OVER = frozenset({".md", ".txt", ".png", ".jpg", ".gitattributes"})


def open_pipeline(folder: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Load a pipeline as its users do, and mount the adapter.

    Args:
        folder: what `save_pretrained` wrote; weights are safetensors, nothing is unpickled.
        adapter: a file that `load_ip_adapter` takes.
        dtype: of the weights.
        device: torch device.

    Raises:
        ModelError: the pipeline takes no IP-Adapter, or the adapter reads two encoders.
        OSError, ValueError, KeyError, RuntimeError, AttributeError: diffusers cannot load it.
    """
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    absent = {part: None for part in _LEFT_OUT if part in index}
    pipeline: Any = DiffusionPipeline.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **absent
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
    return pipeline.to(torch.device(device), dtype)


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
    inside = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    decisive = {
        name.as_posix(): path
        for name, path in inside.items()
        if name.parts[0] not in _LEFT_OUT and path.suffix not in _PASSED_OVER
    }
    for name, path in [*sorted(decisive.items()), ("adapter", adapter)]:
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _refuse_two_encoders(pipeline: Any) -> None:
    body: Any = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    for layer in getattr(body.encoder_hid_proj, "image_projection_layers", ()):
        if "FaceIDPlus" in type(layer).__name__:
            raise ModelError(
                "This adapter reads a face-embedding network and an image encoder, and one of them is edited at a time",
                "Name an adapter that reads one encoder",
            )
