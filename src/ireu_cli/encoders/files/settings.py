"""Settings beside weights (`config.json` and its brothers), read before a library sees them.

The libraries build what settings ask for, of any size, and some keys make them load code. So: no key that names code,
no number beyond its bound, and no model with more weights than its files hold.
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
"""Keys by which settings name code of their own, or have transformers fetch kernels from the hub."""
_PLAIN_ATTENTION = frozenset({"eager", "sdpa"})
_LARGEST = 1 << 24
"""Of all whole numbers in settings of models: vocabularies and tables of positions stay far below."""
_PER_TENSOR = 4
"""Weights that may be registered for each one in the files: some are registered again when they are tied."""
_SOME = 256
_FEW = 1 << 20
"""Values that a model may have beyond twice those of its files: what lacks a weight or two is told by its name."""


def read_settings(path: Path, *, largest: int = _LARGEST) -> dict[str, Any]:
    """The object in a JSON file of settings, without keys that name code and without numbers beyond a bound.

    Raises:
        ModelError: it is not such a file.
        FileNotFoundError: it is not there.
    """
    try:
        told = read_json(path, repeats=True)
    except ContentError as error:
        raise ModelError(f"The {path.name} of {path.parent} {error.why}", "Put the right one in its place") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", "Check the rights to it") from None
    return checked_settings(told, path, largest=largest)


def checked_settings(told: Any, path: Path, *, largest: int = _LARGEST) -> dict[str, Any]:
    """Settings that were read; `path` is what messages name.

    Raises:
        ModelError: no object, a key that names code, weights that are quantised, a number beyond the bound.
    """
    who = f"The {path.name} of {path.parent}"
    if not isinstance(told, dict):
        raise ModelError(f"{who} is not a JSON object", "Put the right one in its place")
    for key, value in _entries(told):
        if key in _CODE and value and value not in _PLAIN_ATTENTION:
            raise ModelError(
                f"{who} asks for code beside its weights ({key}), and nothing of a model is run but its weights",
                "Name a model of a kind that the libraries know, or remove the key if the model does without",
            )
        if key == "quantization_config" and value:
            raise ModelError(
                f"{who} says that the weights are quantised", "Name the weights as they were before: 16 or 32 bits each"
            )
        if isinstance(value, int) and abs(value) > largest:
            raise ModelError(f"{who} states {printable(value, 24)} for {printable(key, 40)}", "Correct the number")
    return told


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values inside a value with the nearest key above each; depth was bounded when they were read."""
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
    """Refuse settings of a model that has more weights than its folder's files; nothing is allocated.

    Args:
        folder: of `config.json` and weights in safetensors.
        build: makes the model out of its settings.

    Raises:
        ModelError: there are no weights, fewer than the model has, or its settings describe none.
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
            f"The config.json of {folder} describes a larger model than its weights fill", "Use an undamaged copy"
        )


class _TooManyError(Exception):
    """More weights were registered than there may be."""


@contextlib.contextmanager
def _counting(most: int) -> Iterator[None]:
    """End what builds a model as soon as it has registered more than so many weights, or ten times as many modules."""
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
    """How many tensors, and values in them, the safetensors files of a folder hold; its indexes stay beside them."""
    for index in sorted(folder.glob("*.index.json")):
        shards_of(index)
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SAFE] if folder.is_dir() else []
    if not files:
        raise ModelError(f"{folder} holds no weights in safetensors", "Use a complete copy")
    opened = [open_file(path) for path in files]
    return sum(map(len, opened)), sum(file.elements for file in opened)


@contextlib.contextmanager
def told_as_model_error(fact: str, remedy: str) -> Iterator[None]:
    """Turn whatever a library raises on files of somebody else's into a `ModelError` that says what it said.

    Errors of ours and a lack of memory pass through.
    """
    try:
        yield
    except (IreuError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - libraries check files with errors of every kind
        raise ModelError(f"{fact} ({said(error)})", remedy) from None


def said(error: Exception) -> str:
    """What a library's error says, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0], 160).rstrip(". ") if lines else type(error).__name__


def numbers_in(settings: Mapping[str, Any], *keys: str, most: int = 1 << 16) -> list[int]:
    """Whole numbers that settings state, each from 1 to a bound.

    Raises:
        ValueError: one is missing, or is none.
    """
    found = [settings.get(key) for key in keys]
    for key, value in zip(keys, found, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ValueError(f"{key} is {printable(value, 24)}, and has to be a whole number from 1 to {most}")
    return [value for value in found if value is not None]
