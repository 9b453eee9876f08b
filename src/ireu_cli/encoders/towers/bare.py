"""The adapter of CLIP's vision transformers without projection (`CLIPVisionModel` of transformers 4.57 and 5).

Image-to-video pipelines such as Wan 2.1 mount one: they read what enters the last block, and the projection would only
take memory. A file from which the projection is missing looks the same, so the config.json has to say that there is
none.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from ireu_cli.support.bounded import ContentError, read_json

CLASS = "CLIPVisionModel"
"""The class of transformers that a config.json names for such an encoder."""
PREFIXES = ("vision_model.", "")
"""The prefixes of its tensors' names: transformers 4 writes the first, transformers 5 writes none, and both are read.
"""
PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
MARKS = ("embeddings.class_embedding", "embeddings.patch_embedding.weight")
"""Tensors that tell it from SigLIP, whose patch embedding has a bias, and from encoders of other libraries."""


class BareTower(nn.Module):
    """The vision transformer under the name `vision_model`, as in files; transformers 5 has no such level."""

    def __init__(self, config: Any) -> None:
        """Build it with random weights, from a `CLIPVisionConfig`."""
        from transformers import CLIPVisionModel

        super().__init__()
        model = CLIPVisionModel(config)
        self.config = config
        self.vision_model = getattr(model, "vision_model", model)


def prefix_in(names: Collection[str]) -> str | None:
    """The prefix of the encoder's names in a file, `vision_model.` or nothing; None if there is no such encoder."""
    return next((start for start in PREFIXES if all(f"{start}{mark}" in names for mark in MARKS)), None)


def says_bare(config: Path) -> bool:
    """Whether a config.json says that it is of an encoder without projection; not where it cannot be read."""
    try:
        told = read_json(config, repeats=True)
    except (ContentError, OSError):
        return False
    return isinstance(told, dict) and told.get("architectures") == [CLASS]
