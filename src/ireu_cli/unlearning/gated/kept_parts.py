"""What the requests of a token tap share: it is made once for an encoder and its retained people, and kept."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encodings.lens import Lens
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.bounded import ContentError, read_json
from ireu_cli.unlearning.block.block_inputs import room_for, sample_people, states_entering
from ireu_cli.unlearning.gated.solve import MakeRoom
from ireu_cli.unlearning.gated.tokens.marking import from_class_token
from ireu_cli.unlearning.gated.tokens.replacing import Apparatus, Sample, build
from ireu_cli.values import Json, People, Photo, Room

_VERSION = 3
"""Raise it when `build` makes another apparatus from the same photos."""
_FLAG, _TOLD, _CHANGES = "flag", "told", "changes."


def shared_apparatus(
    session: Session, lens: Lens, encoder: HasBlocks, used: People, may_change: Tensor, block: int
) -> Apparatus:
    """The apparatus of a carrying block, from a sample of retained people with several photos.

    Raises:
        CapacityError: there are too few of them.
        PhotoError: a photo cannot be used.
    """
    params = session.config.gated
    photos = sampled(session, encoder, used)
    name = _name(photos, may_change, params.rank, params.erase_gain)
    path = lens.block_folder(block) / "apparatus" / f"{name}.safetensors"
    if (kept := read_kept(path, [_CHANGES])) is not None:
        told, (changes,), flag = kept
        return Apparatus(flag, changes, told)
    items = [lens.item(photo) for photo in photos]
    states = states_entering(lens, encoder, items, block, "retained photos, carrying block")
    sample = Sample(states, torch.tensor([photo.person for photo in photos]))
    with session.timed("carry"):
        layer = layer_of(encoder, block)
        made = build(layer, sample, may_change, params.rank, params.erase_gain, from_class_token)
    write_kept(path, made.told, {_CHANGES: made.changes}, made.flag)
    return made


def write_kept(path: Path, told: Json, groups: Mapping[str, Mapping[str, Tensor]], flag: Tensor) -> None:
    """Keep groups of tensors, whose names get the group's in front, a flag, and what is told of them."""
    content = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    tensors = {start + name: part.contiguous() for start, group in groups.items() for name, part in group.items()}
    write_tensors(path, {_FLAG: flag.contiguous(), _TOLD: content} | tensors)


def read_kept(path: Path, groups: Sequence[str]) -> tuple[Json, list[dict[str, Tensor]], Tensor] | None:
    """The inverse of `write_kept`: what is told, the groups, and the flag; None if nothing is kept, or damaged."""
    found = read_tensors(path)
    if found is None:
        return None
    try:
        told = read_json(bytes(found[_TOLD].tolist()))
    except ContentError:
        return None
    parts = [{n.removeprefix(start): part for n, part in found.items() if n.startswith(start)} for start in groups]
    return told, parts, found[_FLAG]


def sampled(session: Session, encoder: HasBlocks, used: People) -> list[Photo]:
    """The sample of retained people that shared parts are made from.

    Raises:
        CapacityError: there are too few of them.
    """
    most = min(session.config.gated.erase_photos, room_for(encoder))
    return sample_people(used, most, session.random("gated", "sample"))


def layer_of(encoder: HasBlocks, block: int) -> Any:
    """A copy of one block, float32 on the CPU."""
    return copy.deepcopy(encoder.model.vision_model.encoder.layers[block]).cpu().float()


def _name(photos: list[Photo], may_change: Tensor, rank: int, gain: float) -> str:
    who = [(photo.person, photo.sha256) for photo in photos]
    return digest_of([_VERSION, who, may_change.nonzero().flatten().tolist(), rank, gain])[:32]


_ROOM_VERSION = 2
"""Raise it when `make_room` chooses other units."""


def kept_room(folder: Path, make: MakeRoom, gram: Tensor, sizes: Tensor, count: int) -> Room:
    """Make room, or find the room that was made earlier from the same inputs.

    Args:
        folder: the folder of the edit site.
        make: makes room.
        gram: float64, see `make_room`.
        sizes: float32, see `make_room`.
        count: number of units to reserve.
    """
    digest = hashlib.sha256(f"{_ROOM_VERSION} {count}".encode())
    for tensor in (gram, sizes):
        digest.update(tensor.contiguous().numpy().data)
    path = folder / "rooms" / f"{digest.hexdigest()[:32]}.safetensors"
    if (found := read_tensors(path)) is not None:
        return Room(found["units"], found["kept"], found["stand_in"])
    room = make(gram, sizes, count)
    write_tensors(path, {"units": room.units, "kept": room.kept, "stand_in": room.stand_in.contiguous()})
    return room
