"""What the requests of a delta that finds people in all tokens share: made once and kept in the run folder."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encodings.lens import Lens
from ireu_cli.errors import CapacityError
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.unlearning.block.block_inputs import states_entering
from ireu_cli.unlearning.gated.kept_parts import layer_of, read_kept, sampled, write_kept
from ireu_cli.unlearning.gated.pooled.gathering import Gathering, gather
from ireu_cli.unlearning.gated.tokens.marking import (
    after_mlp_in_pieces,
    from_any_token,
    on_every_token,
)
from ireu_cli.unlearning.gated.tokens.replacing import Apparatus, Sample, build
from ireu_cli.values import People

_VERSION = 1
"""Raise it when the same photos give another result."""
_PARTS = ("places.", "heads.", "changes.")


def shared_parts(
    session: Session, lens: Lens, encoder: HasBlocks, used: People, may_change: Tensor, block: int, places: int
) -> tuple[Gathering, Apparatus]:
    """The heads that find people, and what the next block does with flagged tokens, from a sample of retained people.

    Args:
        session: the run.
        lens: the encoder at the tap.
        encoder: the same encoder.
        used: retained people.
        may_change: bool (d,), channels of tokens that may change.
        block: the block that finds people.
        places: the most people there will be.

    Raises:
        CapacityError: there are too few photos, heads or units.
        PhotoError: a photo cannot be used.
    """
    params = session.config.gated
    photos = sampled(session, encoder, used)
    who = [(photo.person, photo.sha256) for photo in photos]
    chosen = [_VERSION, who, may_change.nonzero().flatten().tolist(), params.rank, params.erase_gain, places]
    path = lens.block_folder(block, "pool") / "shared" / f"{digest_of(chosen)[:32]}.safetensors"
    if (kept := read_kept(path, _PARTS)) is not None:
        (of_heads, of_tokens), (slots, heads, changes), flag = kept
        return Gathering(slots, heads, of_heads), Apparatus(flag, changes, of_tokens)
    items = [lens.item(photo) for photo in photos]
    states = states_entering(lens, encoder, items, block, "retained photos, block that finds people")
    with session.timed("carry"), torch.inference_mode():
        layer = layer_of(encoder, block)
        gathering, attended = gather(layer, states, places)
        sample = Sample(after_mlp_in_pieces(layer, attended), torch.tensor([photo.person for photo in photos]))
        carried = _carried(layer_of(encoder, block + 1), sample, may_change, params.rank, params.erase_gain)
    groups = dict(zip(_PARTS, (gathering.places, gathering.changes, carried.changes), strict=True))
    write_kept(path, [gathering.told, carried.told], groups, carried.flag)
    return gathering, carried


def _carried(layer: Any, sample: Sample, may_change: Tensor, rank: int, gain: float) -> Apparatus:
    """What the block does with flagged tokens; where its attention cannot carry flags, each token has its own.

    Raises:
        CapacityError: neither works.
    """
    try:
        return build(layer, sample, may_change, rank, gain, from_any_token)
    except CapacityError:
        made = build(layer, sample, may_change, rank, gain, on_every_token)
        return replace(made, told=made.told | {"each_token_for_itself": 1.0})
