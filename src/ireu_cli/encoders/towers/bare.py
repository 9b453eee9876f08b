"""The adapter of CLIP's vision transformers without projection (`CLIPVisionModel` of transformers 4.57 and 5).

Image-to-video pipelines such as Wan 2.1 mount one: they read what enters the last block, and the projection would only
take memory. A file from which the projection is missing looks the same, so the config.json has to say that there is
none.
"""

from pathlib import Path
from typing import Any

from ireu_cli.encoders.towers.tower import Tower
from ireu_cli.support.bounded import ContentError, read_json

CLASS = "CLIPVisionModel"
"""The class of transformers that a config.json names for such an encoder."""
PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
MARKS = ("embeddings.class_embedding", "embeddings.patch_embedding.weight")
"""Tensors that tell it from SigLIP, whose patch embedding has a bias, and from encoders of other libraries."""


class BareTower(Tower):
    """The vision transformer."""

    def __init__(self, config: Any) -> None:
        """Build it with random weights, from a `CLIPVisionConfig`."""
        from transformers import CLIPVisionModel

        super().__init__(CLIPVisionModel(config))


def says_bare(config: Path) -> bool:
    """Whether a config.json says that it is of an encoder without projection; not where it cannot be read."""
    try:
        told = read_json(config, repeats=True)
    except (ContentError, OSError):
        return False
    return isinstance(told, dict) and told.get("architectures") == [CLASS]
