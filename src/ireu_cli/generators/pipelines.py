"""Load whole diffusers pipelines from folders, with an IP-Adapter and without an encoder: SD, SDXL, FLUX."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from ireu_cli.encoders.files.settings import read_settings
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.errors import ModelError
from ireu_cli.generators.mounts import mount_of
from ireu_cli.generators.parts import (
    check_scheduler,
    check_tokenizer,
    class_called,
    is_model,
    is_scheduler,
    is_tokenizer,
    read_model,
)
from ireu_cli.support.bounded import leads_inside, printable

_LEFT_OUT = ("image_encoder", "feature_extractor", "safety_checker")
"""Parts that are not loaded: features are passed in, and no picture is to be filtered."""
_INDEX = "model_index.json"
_PART = re.compile(r"[a-z][a-z0-9_]{0,60}")


def open_pipeline(folder: Path, adapter: Path, dtype: torch.dtype, device: str) -> Any:
    """Load a pipeline as its users do, and load the adapter into it.

    Args:
        folder: what `save_pretrained` wrote, with weights in safetensors.
        adapter: a file that `load_ip_adapter` takes: safetensors, or an archive of plain tensors.
        dtype: dtype of the weights.
        device: torch device.

    Raises:
        ModelError: the pipeline takes no IP-Adapter, a part of it lacks weights or comes as code, or the adapter reads
            two encoders.
        Exception: diffusers cannot load it.
    """
    index = _parts_of(folder)
    kind = class_called("diffusers", _settings_of(folder).get("_class_name"), f"The pipeline {folder}")
    mount = mount_of(kind)
    given: dict[str, Any] = {part: None for part in _LEFT_OUT if part in index}
    given |= {part: _part(folder, part, *names) for part, names in index.items() if part not in _LEFT_OUT}
    # This checks its names, shapes and size; the library reads it again.
    open_file(adapter)
    pipeline: Any = kind.from_pretrained(
        folder, local_files_only=True, **{part: model for part, model in given.items() if model is not _NO_MODEL}
    )
    mount.mount(pipeline, str(adapter.parent), adapter.name)
    _refuse_two_encoders(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    # The adapter's layers are loaded in single precision.
    pipeline = pipeline.to(torch.device(device), dtype)
    _keep_upcast(pipeline)
    return pipeline


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


def _settings_of(folder: Path) -> dict[str, Any]:
    return read_settings(folder / _INDEX)


def _parts_of(folder: Path) -> dict[str, tuple[str, str]]:
    """The parts that a pipeline's index names, each with its library and its class.

    Raises:
        ModelError: the pipeline's class is code beside it, or a part's name is not that of a folder in it.
    """
    settings, found = _settings_of(folder), {}
    if not isinstance(settings.get("_class_name"), str):
        raise ModelError(
            f"The {_INDEX} of {folder} names code in the folder instead of a class of diffusers, and ireu does not "
            "run it",
            "Name a pipeline with a class of diffusers",
        )
    for part, value in settings.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if not _PART.fullmatch(part) or len(value) != 2 or not leads_inside(folder, folder / part):
            raise ModelError(
                f"The {_INDEX} of {folder} names {printable(part)}, which cannot be the name of a part",
                "Use an undamaged copy",
            )
        if value[0] is not None:
            found[part] = (value[0], value[1])
    return found


def _part(folder: Path, part: str, library: str, name: str) -> Any:
    """Load a part with weights, after checking that its files have all of them; check other parts for diffusers.

    Raises:
        ModelError: weights are missing, or it is not a part that ireu knows.
    """
    kind = class_called(library, name, f"The {part} of the pipeline {folder}")
    if is_model(kind):
        return read_model(kind, folder / part)
    if is_tokenizer(kind):
        check_tokenizer(folder / part)
    elif not is_scheduler(kind) or check_scheduler(folder / part) is None:
        raise ModelError(
            f"The {part} of the pipeline {folder} is a {kind.__name__}, which is not a model, a tokenizer or a "
            "scheduler",
            "Name a pipeline of Stable Diffusion, SDXL or FLUX",
        )
    return _NO_MODEL


def _keep_upcast(pipeline: Any) -> None:
    """Leave a decoder in single precision if the pipeline would convert it there and back for every picture.

    Gradients cannot flow back through weights that have changed since. Latents are then scaled in half precision, so
    the last bits of a picture may differ.
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
                "This adapter reads a face-embedding network and an image encoder, and ireu edits only one of them "
                "at a time",
                "Name an adapter that reads one encoder",
            )
