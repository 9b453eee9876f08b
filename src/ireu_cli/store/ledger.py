"""A ledger as plain tensors inside the file of a delta; their names begin with `ledger.`."""

import json
from collections.abc import Sequence, Sized

import torch
from torch import Tensor

from ireu_cli.bounded import read_json
from ireu_cli.values import GateLedger, Ledger, Room

LEDGER = "ledger."
_APPARATUS = "apparatus."
_MOST_CASES = 1 << 24
"""Bytes of the list of cases."""


def ledger_tensors(ledger: Ledger | GateLedger) -> dict[str, Tensor]:
    """Flatten; the names of the cases become the bytes of their JSON."""
    cases = torch.frombuffer(bytearray(json.dumps(ledger.cases).encode()), dtype=torch.uint8)
    parts = {"cases": cases, "slots": torch.tensor(ledger.slots, dtype=torch.int64)}
    if isinstance(ledger, GateLedger):
        parts |= {
            "capacity": torch.tensor([ledger.capacity]),
            "weights": ledger.weights,
            "thresholds": ledger.thresholds,
            "changes": ledger.changes,
            "rise": torch.tensor([ledger.rise], dtype=torch.float64),
        }
    else:
        parts |= {
            "block": torch.tensor([ledger.block]),
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


def read_ledger(tensors: dict[str, Tensor]) -> Ledger | GateLedger:
    """The inverse of `ledger_tensors`.

    Raises:
        KeyError, ValueError: something is missing, or does not fit the rest.
    """
    parts = {name.removeprefix(LEDGER): tensor for name, tensor in tensors.items()}
    return _gates(parts) if "thresholds" in parts else _units(parts)


def _gates(parts: dict[str, Tensor]) -> GateLedger:
    cases, slots = _requests(parts)
    entries = (parts["weights"], parts["thresholds"], parts["changes"])
    ledger = GateLedger(int(parts["capacity"].item()), cases, slots, *entries, float(parts["rise"].item()))
    _check([cases, *entries], slots, ledger.capacity)
    return ledger


def _units(parts: dict[str, Tensor]) -> Ledger:
    cases, slots = _requests(parts)
    shared = {n.removeprefix(_APPARATUS): change for n, change in parts.items() if n.startswith(_APPARATUS)}
    room = Room(parts["units"], parts["kept"], parts["stand_in"])
    entries = (parts["rows"], parts["biases"], parts["columns"])
    ledger = Ledger(int(parts["block"].item()), room, cases, slots, *entries, shared, parts["flag"])
    _check([cases, *entries], slots, ledger.capacity)
    return ledger


def _requests(parts: dict[str, Tensor]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    told = read_json(bytes(parts["cases"].tolist()), _MOST_CASES, name="The list of cases in the delta")
    cases = tuple(str(case) for case in told) if isinstance(told, list) else ()
    return cases, tuple(int(slot) for slot in parts["slots"].tolist())


def _check(entries: Sequence[Sized], slots: tuple[int, ...], capacity: int) -> None:
    if {len(part) for part in entries} != {len(set(slots))} or len(set(slots)) != len(slots):
        raise ValueError("the entries do not fit each other")
    if not all(0 <= slot < capacity for slot in slots):
        raise ValueError("a slot does not exist")
