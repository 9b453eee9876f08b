"""The groups of generators that an encoder can belong to, by its sizes and its layout; see `systems`."""

from typing import Any

from ireu_cli.encoders.dinov2.tower import Dinov2Sizes
from ireu_cli.encoders.eva.tower import EvaConfig
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import config_of
from ireu_cli.encoders.ir_se.backbone import IrSeSizes

_SIZES = {
    (1280, 32, 14, 224): "H",
    (1664, 48, 14, 224): "G",
    (1024, 24, 14, 224): "L",
    (1024, 24, 14, 336): "336",
}
"""Hidden size, blocks, patch and image of CLIP's encoders that are published alone."""
_SIGLIP_SIZES = {
    (1152, 27, 14, 384): "S",
    (1152, 27, 16, 512): "S2",
    (768, 12, 16, 224): "SB",
    (768, 12, 16, 256): "SB256",
}
"""The same of SigLIP's; the smaller ones are as large as a CLIP."""

_DINOV2_GIANT = (1536, 40, 14)
"""Width, blocks and patch of DINOv2 giant."""

_EVA_SIZES = {(1024, 24, 14, 336): "E"}
"""The same of EVA02-CLIP, whose vision transformers are as large as CLIP's."""

_CONVOLUTIONS = {53: ("R50", "FF"), 103: ("R100", "A2F", "AF")}
"""Convolutions of ArcFace's r50 and r100; by its sizes, somebody's own copy looks like any other."""


_IR_SE50 = (52, 64, 512, 7, 512)
"""Convolutions of facexlib's ir_se50, channels of its first layer and its last, the last side, and the embedding."""


def groups_of_transformer(own: str | None, config: Any, *, is_siglip: bool = False) -> tuple[str, ...]:
    """The groups that a transformer of these sizes can belong to.

    Args:
        own: the group of encoders that lie in its layout and in no other, where there is one.
        config: a `CLIPVisionConfig` or a `SiglipVisionConfig`.
        is_siglip: which of them it is; some encoders of both kinds have the same sizes.
    """
    sizes = (config.hidden_size, config.num_hidden_layers, config.patch_size, config.image_size)
    known = (_SIGLIP_SIZES if is_siglip else _SIZES).get(sizes)
    if known is None:
        return ()
    return (own or known,)


def groups_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The groups that the encoder in a checkpoint can belong to."""
    config = config_of(checkpoint)
    if checkpoint.is_eva:
        return groups_of_eva(config)
    own = checkpoint.layout.group_in(name for file in checkpoint.parts for name in file)
    return groups_of_transformer(own, config, is_siglip=checkpoint.is_siglip)


def groups_of_dinov2(sizes: Dinov2Sizes) -> tuple[str, ...]:
    """The group of DINOv2's largest vision transformer."""
    return ("D",) if (sizes.width, sizes.blocks, sizes.patch) == _DINOV2_GIANT else ()


def groups_of_eva(config: EvaConfig) -> tuple[str, ...]:
    """The group of EVA02-CLIP's vision transformer that generators read, for one of its sizes."""
    sizes = (config.hidden_size, config.num_hidden_layers, config.patch_size, config.image_size)
    return (_EVA_SIZES[sizes],) if sizes in _EVA_SIZES else ()


def groups_of_ir_se(sizes: IrSeSizes) -> tuple[str, ...]:
    """The group of facexlib's network, for one of exactly these sizes."""
    own = (sizes.convolutions, sizes.first, sizes.units[-1].leave, sizes.last_side, sizes.width)
    return ("IR50",) if own == _IR_SE50 else ()


def groups_of_network(convolutions: int) -> tuple[str, ...]:
    """The groups that a face-embedding network with this number of convolutions can belong to."""
    return _CONVOLUTIONS.get(convolutions, ())
