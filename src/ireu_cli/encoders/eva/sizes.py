"""Sizes of EVA02-CLIP's vision transformer in a file, and what may lie beside its weights there."""

import torch
from torch import Tensor

from ireu_cli.encoders.eva.tower import TURNS, EvaConfig, EvaTower, config_in, prefix_in, turns
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import printable

_REMEDY = "Name EVA02_CLIP_L_336_psz14_s6B.pt, or another file of EVA02-CLIP as published"
_MOST_TURNED = 2e-3
"""How far a cosine in a file may be from ours; in half precision it is a quarter of this."""


def eva_config(checkpoint: Checkpoint) -> EvaConfig:
    """The sizes of the encoder in a checkpoint, in which nothing else lies.

    Raises:
        ModelError: its tensors tell none, some of them are not of such an encoder, or patches are turned otherwise.
    """
    try:
        config = config_in({name: checkpoint.shape(name) for name in checkpoint})
        with torch.device("meta"):
            own = EvaTower(config).state_dict()
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise ModelError(
            f"The sizes of the encoder {checkpoint.source} cannot be told from its tensors", _REMEDY
        ) from None
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if odd := sorted(name for name in checkpoint if checkpoint.shape(name) != shapes.get(name)):
        raise ModelError(
            f"The encoder {checkpoint.source} holds {printable(odd[0])}, which EVA02-CLIP does not have in that shape",
            _REMEDY,
        )
    tables = dict(zip(TURNS, turns(config.image_size // config.patch_size), strict=True))
    for name, found in _tables_beside(checkpoint).items():
        wanted = next(table for ending, table in tables.items() if name.endswith(ending))
        if found.shape != wanted.shape or not bool(((found.float() - wanted).abs() < _MOST_TURNED).all()):
            raise ModelError(
                f"The encoder {checkpoint.source} turns its patches by other angles than EVA02-CLIP "
                f"({printable(name)})",
                _REMEDY,
            )
    return config


def _tables_beside(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tables of angles in the files of an encoder, under their names there."""
    prefix = prefix_in({key for file in checkpoint.parts for key in file}) or ""
    return {
        key: file[key] for file in checkpoint.parts for key in file if key.startswith(prefix) and key.endswith(TURNS)
    }
