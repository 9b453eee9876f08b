"""Parts of generators out of folders that others wrote: only classes of the libraries, only what the files fill."""

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
"""Of a scheduler's training, which is how long its tables are; published ones have a thousand."""
_MOST_TOKENS = 1 << 26
"""Bytes of each file of a tokenizer."""
_OWN_PATHS = ("_file", "_files", "_spm")
"""How keys of a tokenizer's settings end that say where its files are, in place of those beside it."""
_UNREAD = frozenset({"added_tokens_file", "chat_template_file", "special_tokens_map_file", "tokenizer_config_file"})
"""Such keys that transformers does not go by; old files hold them."""
_COPY = "Use an undamaged copy"


def class_called(library: Any, name: Any, place: str) -> Any:
    """A class of diffusers or transformers.

    Args:
        library: its name, out of a file.
        name: of the class, out of a file.
        place: how messages call what is to be of that class.

    Raises:
        ModelError: another library, or it has no such class.
    """
    if not isinstance(library, str) or library not in LIBRARIES:
        raise ModelError(
            f"{place} is of the library {printable(library, 40)}, and code of diffusers and transformers alone is run",
            "Name a pipeline whose parts are of these two",
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
    """A model in evaluation out of its folder, all of whose weights lie there; gradients are off.

    Args:
        kind: a class with weights, of diffusers or transformers.
        folder: with config.json and safetensors.

    Raises:
        ModelError: weights are missing, or its settings describe a larger model than they fill, or name code.
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
    """The class of a scheduler, whose settings are within bounds.

    Raises:
        ModelError: they are not, or the class is none of a scheduler.
        FileNotFoundError: there are none.
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
                f"{path} says where other files are ({printable(key, 40)}); those beside it are read",
                "Remove that key",
            )


def is_model(kind: Any) -> bool:
    """Whether a class has weights."""
    return issubclass(kind, torch.nn.Module)


def is_tokenizer(kind: Any) -> bool:
    """Whether a class is one of tokenizers."""
    from transformers import PreTrainedTokenizerBase

    return issubclass(kind, PreTrainedTokenizerBase)


def is_scheduler(kind: Any) -> bool:
    """Whether a class is one of schedulers."""
    from diffusers import SchedulerMixin

    return issubclass(kind, SchedulerMixin)
