"""Which groups of generators an encoder can belong to, told from its sizes and its layout; see `systems`."""

from typing import Any

from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import config_of

_SIZES = {
    (1280, 32, 14, 224): "H",
    (1664, 48, 14, 224): "G",
    (1024, 24, 14, 224): "L",
    (1024, 24, 14, 336): "336",
    (1152, 27, 14, 384): "S",
}
"""Hidden size, blocks, patch and image of the encoders that are published alone; no CLIP is as SigLIP so400m."""

_CONVOLUTIONS = {53: ("R50",), 103: ("R100", "A2F")}
"""Convolutions of ArcFace's r50 and r100; from sizes alone Arc2Face's own network is an r100 as any other."""

_QFORMER = "id_encoder.qformer_perceiver."
"""Tensors that PhotoMaker v2 has and v1 has not."""


def groups_of_transformer(checkpoint_layout: str, config: Any, *, second_version: bool = False) -> tuple[str, ...]:
    """The groups that a transformer of these sizes in this layout can belong to.

    Args:
        checkpoint_layout: of `Checkpoint`.
        config: a `CLIPVisionConfig` or a `SiglipVisionConfig`.
        second_version: the checkpoint is a PhotoMaker v2.
    """
    sizes = (config.hidden_size, config.num_hidden_layers, config.patch_size, config.image_size)
    known = _SIZES.get(sizes)
    if known is None:
        return ()
    own = {"photomaker": "P2" if second_version else "P1", "fastcomposer": "FC"}.get(checkpoint_layout)
    return (own or known,)


def groups_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The groups that the encoder in a checkpoint can belong to."""
    second = any(name.startswith(_QFORMER) for file in checkpoint.parts for name in file)
    return groups_of_transformer(checkpoint.layout, config_of(checkpoint), second_version=second)


def groups_of_network(convolutions: int) -> tuple[str, ...]:
    """The groups that a face-embedding network with so many convolutions can belong to."""
    return _CONVOLUTIONS.get(convolutions, ())
