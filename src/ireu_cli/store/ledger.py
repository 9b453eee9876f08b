"""A ledger as plain tensors in the file of a delta; their names begin with `ledger.`."""

import json
from collections.abc import Callable, Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from ireu_cli.support.bounded import read_json
from ireu_cli.values import AnyLedger, GateLedger, Ledger, PooledLedger, Room

LEDGER = "ledger."
_APPARATUS = "apparatus."
_LARGEST = 1e15
"""Numbers of a ledger stay far below, and those that divide stay far above its inverse."""
_MOST_CASES = 1 << 24
"""The most bytes of the list of cases."""


def ledger_tensors(ledger: AnyLedger) -> dict[str, Tensor]:
    """Flatten the ledger; the names of the cases become the bytes of their JSON."""
    cases = torch.frombuffer(bytearray(json.dumps(ledger.cases).encode()), dtype=torch.uint8)
    parts = {"cases": cases, "slots": torch.tensor(ledger.slots, dtype=torch.int64)}
    parts |= _FLATTENED[type(ledger)](ledger)
    # Clone them: safetensors refuses tensors that share memory, and the apparatus is also part of the change.
    return {LEDGER + name: tensor.detach().cpu().clone().contiguous() for name, tensor in parts.items()}


def _of_gates(ledger: GateLedger) -> dict[str, Tensor]:
    return {
        "capacity": torch.tensor([ledger.capacity]),
        "weights": ledger.weights,
        "thresholds": ledger.thresholds,
        "changes": ledger.changes,
        "rise": torch.tensor([ledger.rise], dtype=torch.float64),
    }


def _of_units(ledger: Ledger) -> dict[str, Tensor]:
    return _in_block(ledger) | {name: getattr(ledger, name) for name in Ledger.ENTRY}


def _of_pooled(ledger: PooledLedger) -> dict[str, Tensor]:
    return _in_block(ledger) | {name: getattr(ledger, name) for name in (*PooledLedger.ENTRY, *PooledLedger.SHARED)}


def _in_block(ledger: Ledger | PooledLedger) -> dict[str, Tensor]:
    """Where people are found, the reserve there, and what all requests share."""
    parts = {
        "block": torch.tensor([ledger.block]),
        "units": ledger.room.units,
        "kept": ledger.room.kept,
        "stand_in": ledger.room.stand_in,
        "flag": ledger.flag,
    }
    return parts | {f"{_APPARATUS}{name}": change for name, change in ledger.apparatus.items()}


_FLATTENED: dict[type, Callable[[Any], dict[str, Tensor]]] = {
    Ledger: _of_units,
    GateLedger: _of_gates,
    PooledLedger: _of_pooled,
}


def read_ledger(tensors: dict[str, Tensor]) -> AnyLedger:
    """The inverse of `ledger_tensors`.

    Raises:
        KeyError, ValueError: a part is missing, or does not fit the rest.
    """
    parts = {name.removeprefix(LEDGER): tensor for name, tensor in tensors.items()}
    if "channels" in parts:
        return _pooled(parts)
    return _gates(parts) if "thresholds" in parts else _units(parts)


def _gates(parts: dict[str, Tensor]) -> GateLedger:
    cases, slots = _requests(parts)
    count = len(slots)
    width = _shaped(parts, "weights", count, None)[1]
    _shaped(parts, "thresholds", count)
    _shaped(parts, "changes", count, width)
    _shaped(parts, "rise", 1)
    if not float(parts["rise"]) > 0:
        raise ValueError("the rise has to be above zero")
    entries = (parts["weights"], parts["thresholds"], parts["changes"])
    ledger = GateLedger(_whole(parts, "capacity"), cases, slots, *entries, float(parts["rise"]))
    _check([cases, *entries], slots, ledger.capacity)
    return ledger


def _units(parts: dict[str, Tensor]) -> Ledger:
    cases, slots = _requests(parts)
    count = len(slots)
    width = _shaped(parts, "rows", count, 2, None)[2]
    _shaped(parts, "biases", count, 2)
    written = _shaped(parts, "columns", count, None, 2)[1]
    if parts["flag"].ndim != 1 or len(parts["flag"]) not in {0, written, width}:
        raise ValueError("the flag does not fit the entries")
    entries = (parts["rows"], parts["biases"], parts["columns"])
    ledger = Ledger(_whole(parts, "block"), _room(parts), cases, slots, *entries, _shared(parts), parts["flag"])
    _check([cases, *entries], slots, ledger.capacity)
    return ledger


def _pooled(parts: dict[str, Tensor]) -> PooledLedger:
    cases, slots = _requests(parts)
    count = len(slots)
    width = _shaped(parts, "reads", count, None)[1]
    for name in ("offsets", "thresholds", "rises", "sharpness"):
        _shaped(parts, name, count)
    if not all(bool((parts[name] > 1 / _LARGEST).all()) for name in ("rises", "sharpness")):
        raise ValueError("rises and sharpness have to be above zero")
    room = _room(parts)
    places = _shaped(parts, "rests", None)[0]
    for name in ("writers", "readers", "takers"):
        _shaped(parts, name, places, width)
    if _shaped(parts, "openings", places, None)[1] < 2:
        raise ValueError("openings lack scores")
    _shaped(parts, "flag", width)
    channels = parts["channels"]
    if channels.shape != (places,) or channels.dtype != torch.int64 or len(set(channels.tolist())) != places:
        raise ValueError("channels have to be different numbers, one a place")
    if bool((channels < 0).any()) or len(parts["units"]) != 4 * places:
        raise ValueError("a channel does not exist, or places lack units")
    entries = {name: parts[name] for name in PooledLedger.ENTRY}
    shared = {name: parts[name] for name in PooledLedger.SHARED}
    ledger = PooledLedger(
        block=_whole(parts, "block"),
        room=room,
        cases=cases,
        slots=slots,
        **entries,
        **shared,
        apparatus=_shared(parts),
        flag=parts["flag"],
    )
    _check([cases, *entries.values()], slots, ledger.capacity)
    return ledger


def _shared(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {name.removeprefix(_APPARATUS): change for name, change in parts.items() if name.startswith(_APPARATUS)}
    for name, change in found.items():
        if change.dtype != torch.float32 or not bool(torch.isfinite(change).all()):
            raise ValueError(f"the change of {name} does not hold finite numbers")
    return found


def _shaped(parts: dict[str, Tensor], name: str, *shape: int | None) -> tuple[int, ...]:
    """The shape of a part, which holds finite floating-point numbers; None means any length."""
    found = parts[name]
    if found.ndim != len(shape) or any(want not in {None, have} for want, have in zip(shape, found.shape, strict=True)):
        raise ValueError(f"{name} has another shape")
    if not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        raise ValueError(f"{name} holds a value that is not a finite number")
    if found.numel() and float(found.abs().amax()) > _LARGEST:
        raise ValueError(f"{name} holds a value that nothing measures")
    return tuple(found.shape)


def _whole(parts: dict[str, Tensor], name: str) -> int:
    if parts[name].shape != (1,) or parts[name].dtype != torch.int64:
        raise ValueError(f"{name} has to be a whole number")
    return int(parts[name])


def _room(parts: dict[str, Tensor]) -> Room:
    """Read the reserve; refuse one that names units twice, or units that do not exist."""
    units, kept = parts["units"], parts["kept"]
    if units.ndim != 1 or kept.ndim != 1 or {units.dtype, kept.dtype} != {torch.int64}:
        raise ValueError("units have to be numbers")
    if sorted([*units.tolist(), *kept.tolist()]) != list(range(len(units) + len(kept))):
        raise ValueError("units are missing or named twice")
    _shaped(parts, "stand_in", len(kept) + 1, len(units))
    return Room(units, kept, parts["stand_in"])


def _requests(parts: dict[str, Tensor]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if parts["cases"].ndim != 1 or parts["cases"].dtype != torch.uint8:
        raise ValueError("the list of cases has to be text")
    told = read_json(bytes(parts["cases"].tolist()), _MOST_CASES, name="The list of cases in the delta")
    if not isinstance(told, list) or not all(isinstance(case, str) for case in told):
        raise ValueError("cases have to be texts")
    if parts["slots"].ndim != 1 or parts["slots"].dtype != torch.int64:
        raise ValueError("slots have to be numbers")
    return tuple(told), tuple(parts["slots"].tolist())


def _check(entries: Sequence[Sized], slots: tuple[int, ...], capacity: int) -> None:
    if {len(part) for part in entries} != {len(set(slots))} or len(set(slots)) != len(slots):
        raise ValueError("the entries do not fit together")
    if not all(0 <= slot < capacity for slot in slots):
        raise ValueError("a slot does not exist")
