"""A ledger as plain tensors inside the file of a delta; their names begin with `ledger.`."""

import json

import torch
from torch import Tensor

from ireu_cli.values import Ledger, Room

LEDGER = "ledger."
_APPARATUS = "apparatus."


def ledger_tensors(ledger: Ledger) -> dict[str, Tensor]:
    """Flatten; the names of the cases become the bytes of their JSON."""
    cases = torch.frombuffer(bytearray(json.dumps(ledger.cases).encode()), dtype=torch.uint8)
    parts = {
        "block": torch.tensor([ledger.block]),
        "cases": cases,
        "slots": torch.tensor(ledger.slots, dtype=torch.int64),
        "units": ledger.room.units,
        "kept": ledger.room.kept,
        "stand_in": ledger.room.stand_in,
        "rows": ledger.rows,
        "biases": ledger.biases,
        "columns": ledger.columns,
        "flag": ledger.flag,
    }
    parts |= {f"{_APPARATUS}{name}": change for name, change in ledger.apparatus.items()}
    # Clones: safetensors refuses tensors that share memory, and the apparatus is part of the change too.
    return {LEDGER + name: tensor.detach().cpu().clone().contiguous() for name, tensor in parts.items()}


def read_ledger(tensors: dict[str, Tensor]) -> Ledger:
    """The inverse of `ledger_tensors`.

    Raises:
        KeyError, ValueError: something is missing, or does not fit the rest.
    """
    parts = {name.removeprefix(LEDGER): tensor for name, tensor in tensors.items()}
    cases = tuple(str(case) for case in json.loads(bytes(parts["cases"].tolist())))
    slots = tuple(int(slot) for slot in parts["slots"].tolist())
    shared = {n.removeprefix(_APPARATUS): change for n, change in parts.items() if n.startswith(_APPARATUS)}
    room = Room(parts["units"], parts["kept"], parts["stand_in"])
    entries = (parts["rows"], parts["biases"], parts["columns"])
    ledger = Ledger(int(parts["block"].item()), room, cases, slots, *entries, shared, parts["flag"])
    counts = {len(cases), len(set(slots)), len(ledger.rows), len(ledger.biases), len(ledger.columns)}
    if counts != {len(slots)} or not all(0 <= slot < ledger.capacity for slot in slots):
        raise ValueError("the entries do not fit each other")
    return ledger
