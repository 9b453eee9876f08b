"""Load parts of generators from folders that others wrote: only libraries' classes, no larger than the files."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ireu_cli.encoders.files.settings import read_settings, refuse_larger
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import printable

LIBRARIES = frozenset({"diffusers", "transformers"})
_CLASS = re.compile(r"[A-Z]\w{1,80}")
_MOST_STEPS = 100_000
"""The most training steps of a scheduler, which set the length of its tables; published ones have a thousand."""
_MOST_TOKENS = 1 << 26
"""The most bytes of each file of a tokenizer."""
_OWN_PATHS = ("_file", "_files", "_spm")
"""Endings of keys in a tokenizer's settings that name files elsewhere, in place of those beside it."""
_UNREAD = frozenset({"added_tokens_file", "chat_template_file", "special_tokens_map_file", "tokenizer_config_file"})
"""Such keys that transformers ignores; old files hold them."""
_COPY = "Use an undamaged copy"


def class_called(library: Any, name: Any, place: str) -> Any:
    """A class of diffusers or transformers.

    Args:
        library: name of the library, from a file.
        name: name of the class, from a file.
        place: the name in messages of the part with that class.

    Raises:
        ModelError: it is another library, or the library has no such class.
    """
    if not isinstance(library, str) or library not in LIBRARIES:
        raise ModelError(
            f"{place} is of the library {printable(library, 40)}, and ireu only runs code of diffusers and "
            "transformers",
            "Name a pipeline with parts of these two only",
        )
    found = None
    if isinstance(name, str) and _CLASS.fullmatch(name):
        try:
            found = getattr(importlib.import_module(library), name, None)
        except (ImportError, RuntimeError):
            raise ModelError(f"{place} needs a library that is not installed", f"Install what {name} needs") from None
    if not isinstance(found, type) or found.__module__.partition(".")[0] != library:
        raise ModelError(
            f"{place} is a {printable(name, 60)}, which {library} does not have",
            "Install the version it was saved with",
        )
    return found


def read_model(kind: Any, folder: Path) -> Any:
    """Load a model from a folder that holds all of its weights, for evaluation without gradients.

    Args:
        kind: a class with weights, of diffusers or transformers.
        folder: with config.json and safetensors.

    Raises:
        ModelError: weights are missing, or its settings describe a larger model than the weights fill, or name code.
        Exception: the library cannot load it.
    """
    settings = read_settings(folder / "config.json")
    refuse_larger(folder, _builder(kind, settings))
    model, info = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True, use_safetensors=True)
    if info["missing_keys"]:
        raise ModelError(f"The {folder.name} of the pipeline {folder.parent} lacks weights", _COPY)
    return model.eval().requires_grad_(False)


def _builder(kind: Any, settings: dict[str, Any]) -> Callable[[], Any]:
    if kind.__module__.startswith("diffusers."):
        return lambda: kind.from_config(dict(settings))
    return lambda: kind(kind.config_class.from_dict(dict(settings)))


def check_scheduler(folder: Path) -> Any:
    """The class of a scheduler, after checking that its settings are within bounds.

    Raises:
        ModelError: they are not, or the class is not a scheduler.
        FileNotFoundError: there are no settings.
    """
    from diffusers import SchedulerMixin

    settings = read_settings(folder / "scheduler_config.json", largest=_MOST_STEPS)
    kind = class_called("diffusers", settings.get("_class_name"), f"The scheduler in {folder}")
    if not issubclass(kind, SchedulerMixin):
        raise ModelError(f"The scheduler in {folder} is a {kind.__name__}", "Name a pipeline with a scheduler")
    return kind


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer whose settings lead to other files or name code, or whose files are very large.

    Raises:
        ModelError: see above.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} does not exist", _COPY)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size > _MOST_TOKENS:
            raise ModelError(f"{path} is larger than {_MOST_TOKENS >> 20} MB", _COPY)
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    for key, value in read_settings(path, largest=10**39).items():
        if key.endswith(_OWN_PATHS) and key not in _UNREAD and value:
            raise ModelError(
                f"{path} names files elsewhere ({printable(key, 40)}), and ireu only reads the files beside it",
                "Remove that key",
            )


def is_model(kind: Any) -> bool:
    """Whether a class has weights."""
    return issubclass(kind, torch.nn.Module)


def is_tokenizer(kind: Any) -> bool:
    """Whether a class is a tokenizer."""
    from transformers import PreTrainedTokenizerBase

    return issubclass(kind, PreTrainedTokenizerBase)


def is_scheduler(kind: Any) -> bool:
    """Whether a class is a scheduler."""
    from diffusers import SchedulerMixin

    return issubclass(kind, SchedulerMixin)
