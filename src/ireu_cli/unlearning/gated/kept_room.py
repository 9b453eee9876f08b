"""Keep room in a layer for later requests that need the same: making it takes longer than finding a person."""

import hashlib
from pathlib import Path

from torch import Tensor

from ireu_cli.store.features import read_tensors, write_tensors
from ireu_cli.unlearning.gated.solve import MakeRoom
from ireu_cli.values import Room

_VERSION = 2
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
    digest = hashlib.sha256(f"{_VERSION} {count}".encode())
    for tensor in (gram, sizes):
        digest.update(tensor.contiguous().numpy().data)
    path = folder / "rooms" / f"{digest.hexdigest()[:32]}.safetensors"
    if (found := read_tensors(path)) is not None:
        return Room(found["units"], found["kept"], found["stand_in"])
    room = make(gram, sizes, count)
    write_tensors(path, {"units": room.units, "kept": room.kept, "stand_in": room.stand_in.contiguous()})
    return room
