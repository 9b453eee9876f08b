"""Prepare pixels for a vision transformer, with the settings beside it, which are checked first."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.settings import checked_settings, read_settings, told_as_model_error
from ireu_cli.encoders.towers import siglip
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import printable
from ireu_cli.values import RgbImage

PROCESSOR = "preprocessor_config.json"
_LARGEST_SIDE = 8192
_ENLARGED = 4
"""The largest picture that preprocessing may make before it crops, as a multiple of the model's side."""
_MEND = "Repair or remove it"


def processor_beside(checkpoint: Checkpoint, side: int) -> Any:
    """Load the image processor from the encoder's own settings, or as its usual loader does if there are none.

    Raises:
        ModelError: the settings cannot be read, or belong to another kind of encoder.
    """
    name = "Siglip" if checkpoint.is_siglip else "CLIP"
    kind, path = _processor_class(name), checkpoint.config.with_name(PROCESSOR)
    usual = siglip.usual_processor if checkpoint.is_siglip else _squeezing if checkpoint.layout.squeezes else _usual
    lone = checkpoint.source.is_file()
    try:
        told = _processor_settings(path)
    except FileNotFoundError:
        return usual(kind, side)
    except ModelError:
        if lone and checkpoint.is_siglip:
            return usual(kind, side)
        raise
    if checkpoint.is_siglip and not siglip.prepares(told, side):
        if lone:
            # It is of another file in the folder.
            return usual(kind, side)
        raise _unusable(path, f"not for whole pictures of {side} px")
    return _made(kind, told, path, side)


def digest_of_settings(processor: Any) -> str:
    """Digest (16 hex) of a processor's settings; equal digests give equal pixels."""
    told = {key: value for key, value in processor.to_dict().items() if not key.startswith("image_processor")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def prepared(processor: Any, images: Sequence[RgbImage], side: int) -> Tensor:
    """Pictures as a processor prepares them: float32 (n, 3, side, side), normalised."""
    if not images:
        return torch.empty(0, 3, side, side)
    values: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    return values


def processor_in(folder: Path, name: str, usual: Mapping[str, Any], side: int) -> Any:
    """Load an image processor from the settings in a folder.

    Args:
        folder: that of the encoder.
        name: how transformers calls the processor, such as Bit.
        usual: the settings where there are none in the folder.
        side: side of the pictures that it usually makes; others may be a few times as large.

    Raises:
        ModelError: the settings cannot be read, or make pictures that are too large.
    """
    path = folder / PROCESSOR
    try:
        told = _processor_settings(path)
    except FileNotFoundError:
        told = dict(usual)
    return _made(_processor_class(name), told, path, side)


def _made(kind: Any, told: dict[str, Any], path: Path, side: int) -> Any:
    """A processor with these settings; messages name `path`."""
    _refuse_sizes(told, path, side)
    if wrong := next((key for key in told if key.startswith("__") or callable(getattr(kind, key, None))), None):
        raise _unusable(path, f"{printable(wrong, 40)} is not a setting")
    with quiet_transformers(), told_as_model_error(f"The {PROCESSOR} of {path.parent} cannot be used", _MEND):
        return kind.from_dict(told)


def _processor_settings(path: Path) -> dict[str, Any]:
    """The settings of an image processor; transformers 5 may keep them inside another file."""
    told = read_settings(path, largest=_LARGEST_SIDE)
    with contextlib.suppress(FileNotFoundError):
        inner = read_settings(path.with_name("processor_config.json")).get("image_processor")
        if isinstance(inner, dict):
            return checked_settings(inner, path.with_name("processor_config.json"), largest=_LARGEST_SIDE)
    return told


def _refuse_sizes(told: Mapping[str, Any], path: Path, side: int) -> None:
    """Refuse settings that enlarge pictures to more than a few times the encoder's side."""
    for key in ("size", "crop_size"):
        value = told.get(key)
        numbers = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if any(
            type(number) is not int or not 1 <= number <= _ENLARGED * side for number in numbers if number is not None
        ):
            raise _unusable(path, f"not for pictures of {side} px: its {key} is {printable(value, 60)}")


def _unusable(path: Path, why: str) -> ModelError:
    return ModelError(f"The {path.name} of {path.parent} cannot be used ({why})", _MEND)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the user's terminal, and restore its settings."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _usual(kind: Any, side: int) -> Any:
    """The processor that diffusers' `load_ip_adapter` uses when a repository has no settings."""
    return kind(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _squeezing(kind: Any, side: int) -> Any:
    """The same for loaders that squeeze whole pictures into the square, whatever their shape."""
    square = {"height": side, "width": side}
    return kind(size=square, crop_size=square, do_center_crop=False)


def _processor_class(name: str) -> Any:
    """The Pillow processor under either name: its results do not depend on torchvision being installed."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
