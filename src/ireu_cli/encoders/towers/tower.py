"""What vision transformers that are not built as `CLIPVisionModelWithProjection` is have in common."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

PREFIXES = ("vision_model.", "")
"""The prefixes of their tensors' names: published files have the first; transformers 5 writes none."""


class Tower(nn.Module):
    """A vision transformer under the name `vision_model`, as in files; transformers 5 has no such level."""

    def __init__(self, model: Any) -> None:
        """Take a model of transformers, which has a `config`."""
        super().__init__()
        self.config = model.config
        self.vision_model = getattr(model, "vision_model", model)


def prefix_in(names: Collection[str], marks: Sequence[str]) -> str | None:
    """The prefix of an encoder's names in a file, `vision_model.` or nothing; None if its marks are not there."""
    return next((start for start in PREFIXES if all(f"{start}{mark}" in names for mark in marks)), None)
