"""Read settings beside weights (`config.json` and others like it) before a library sees them.

The libraries build whatever the settings ask for, of any size, and some keys make them load code. So this module
refuses keys that name code, numbers beyond a bound, and models with more weights than their files hold.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as torch_modules

from ireu_cli.encoders.files.tensor_file import SAFE, open_file, shards_of
from ireu_cli.errors import IreuError, ModelError
from ireu_cli.support.bounded import ContentError, printable, read_json

_CODE = frozenset(
    {
        "_attn_implementation",
        "_experts_implementation",
        "_module",
        "attn_implementation",
        "auto_map",
        "custom_pipeline",
        "custom_pipelines",
        "experts_implementation",
        "kernel_config",
        "trust_remote_code",
        "use_kernels",
    }
)
"""Keys with which settings name code of their own, or make transformers fetch kernels from the hub."""
_PLAIN_ATTENTION = frozenset({"eager", "sdpa"})
_LARGEST = 1 << 24
"""The largest whole number in a model's settings: vocabularies and tables of positions stay far below it."""
_PER_TENSOR = 4
"""How many weights may be registered for each one in the files: tied weights are registered more than once."""
_SOME = 256
_FEW = 1 << 20
"""How many values a model may have beyond twice those of its files: this lets later checks name a missing weight."""


def read_settings(path: Path, *, largest: int = _LARGEST) -> dict[str, Any]:
    """The object in a JSON file of settings, without keys that name code and without numbers beyond a bound.

    Raises:
        ModelError: it is not such a file.
        FileNotFoundError: it does not exist.
    """
    try:
        told = read_json(path, repeats=True)
    except ContentError as error:
        raise ModelError(f"The {path.name} of {path.parent} {error.why}", "Put the right one in its place") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", "Check its permissions") from None
    return checked_settings(told, path, largest=largest)


def checked_settings(told: Any, path: Path, *, largest: int = _LARGEST) -> dict[str, Any]:
    """Check settings that were read; messages name `path`.

    Raises:
        ModelError: they are no object, name code, say that weights are quantised, or hold a number beyond the bound.
    """
    who = f"The {path.name} of {path.parent}"
    if not isinstance(told, dict):
        raise ModelError(f"{who} is not a JSON object", "Put the right one in its place")
    for key, value in _entries(told):
        if key in _CODE and value and value not in _PLAIN_ATTENTION:
            raise ModelError(
                f"{who} asks to load code ({key}), and ireu runs no code that comes with a model",
                "Name a model of a kind that the libraries know, or remove the key if the model does not need it",
            )
        if key == "quantization_config" and value:
            raise ModelError(
                f"{who} says that the weights are quantised",
                "Name the weights that were not quantised, with 16 or 32 bits each",
            )
        if isinstance(value, int) and abs(value) > largest:
            raise ModelError(f"{who} states {printable(value, 24)} for {printable(key, 40)}", "Correct the number")
    return told


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values inside a value, each with the nearest key above it; reading them bounded the depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner if not isinstance(inner, dict | list) else bool(inner)
            yield from _entries(inner, name)
    elif isinstance(value, list):
        for inner in value:
            if not isinstance(inner, dict | list):
                yield key, inner
            yield from _entries(inner, key)


def refuse_larger(folder: Path, build: Callable[[], Any]) -> None:
    """Refuse settings of a model that has more weights than its folder's files; this allocates nothing.

    Args:
        folder: holds `config.json` and weights in safetensors.
        build: makes the model from its settings.

    Raises:
        ModelError: there are no weights or fewer than the model has, or its settings describe no model.
    """
    tensors, elements = _held(folder)
    try:
        with torch.device("meta"), _counting(_PER_TENSOR * tensors + _SOME):
            model = build()
        needed: int | None = sum(weight.numel() for weight in model.parameters())
    except _TooManyError:
        needed = None
    if needed is None or needed > 2 * elements + _FEW:
        raise ModelError(
            f"The config.json of {folder} describes a model with more weights than its files hold",
            "Use an undamaged copy",
        )


class _TooManyError(Exception):
    """More weights were registered than are allowed."""


@contextlib.contextmanager
def _counting(most: int) -> Iterator[None]:
    """Stop building a model once it has registered more than so many weights, or ten times as many modules."""
    left = {"weights": most, "modules": 10 * most}

    def count(kind: str) -> None:
        left[kind] -= 1
        if left[kind] < 0:
            raise _TooManyError

    hooks = [
        torch_modules.register_module_parameter_registration_hook(lambda *_: count("weights")),
        torch_modules.register_module_module_registration_hook(lambda *_: count("modules")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _held(folder: Path) -> tuple[int, int]:
    """Count the tensors in the safetensors files of a folder, and their values; index files are ignored."""
    for index in sorted(folder.glob("*.index.json")):
        shards_of(index)
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SAFE] if folder.is_dir() else []
    if not files:
        raise ModelError(f"{folder} holds no weights in safetensors", "Use a complete copy")
    opened = [open_file(path) for path in files]
    return sum(map(len, opened)), sum(file.elements for file in opened)


@contextlib.contextmanager
def told_as_model_error(fact: str, remedy: str) -> Iterator[None]:
    """Turn any error that a library raises on foreign files into a `ModelError` with the library's words.

    Our own errors and a lack of memory pass through.
    """
    try:
        yield
    except (IreuError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - libraries check files with errors of every kind
        raise ModelError(f"{fact} ({said(error)})", remedy) from None


def said(error: Exception) -> str:
    """The message of a library's error, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0], 160).rstrip(". ") if lines else type(error).__name__


def numbers_in(settings: Mapping[str, Any], *keys: str, most: int = 1 << 16) -> list[int]:
    """Read whole numbers from settings, each from 1 to a bound.

    Raises:
        ValueError: one is missing, or is no whole number in that range.
    """
    found = [settings.get(key) for key in keys]
    for key, value in zip(keys, found, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ValueError(f"{key} is {printable(value, 24)}; it must be a whole number from 1 to {most}")
    return [value for value in found if value is not None]
