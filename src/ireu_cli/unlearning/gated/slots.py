"""Requests in the slots of a ledger: add them, take them out and join them, for every kind of entry."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ireu_cli.errors import CapacityError
from ireu_cli.values import AnyLedger, GateLedger, Ledger, PooledLedger

Kept = TypeVar("Kept", Ledger, GateLedger, PooledLedger)


def add_entries(ledger: Kept, cases: Sequence[str], entries: Mapping[str, Tensor]) -> Kept:
    """Add requests, each into the first free slot.

    Args:
        ledger: the ledger to add to.
        cases: the name of each request.
        entries: the fields that `ENTRY` of the ledger names, one row a request.

    Raises:
        CapacityError: there are not enough free slots; the error says how many there are.
    """
    taken = set(ledger.slots)
    free: list[int] = [slot for slot in range(ledger.capacity) if slot not in taken]
    if len(cases) > len(free):
        raise CapacityError(
            f"{len(cases)} people are to be unlearned, and only {len(free)} of the {ledger.capacity} places are free",
            "Withdraw requests, or start a new delta with a larger gated.people",
        )
    rows: dict[str, Any] = {name: torch.cat([getattr(ledger, name), entries[name].float()]) for name in ledger.ENTRY}
    return replace(ledger, cases=(*ledger.cases, *cases), slots=(*ledger.slots, *free[: len(cases)]), **rows)


def leave(ledger: Kept, cases: Sequence[str]) -> Kept:
    """Take the requests of some cases out of a ledger; their slots are free again."""
    leaving = set(cases)
    kept = [i for i, case in enumerate(ledger.cases) if case not in leaving]
    rows: dict[str, Any] = {name: getattr(ledger, name)[kept] for name in ledger.ENTRY}
    return replace(
        ledger,
        cases=tuple(ledger.cases[i] for i in kept),
        slots=tuple(ledger.slots[i] for i in kept),
        **rows,
    )


def add_all(ledger: Kept, other: Kept) -> Kept:
    """Add the requests of another ledger, in the order of its slots.

    Raises:
        CapacityError: there are not enough free slots.
    """
    order = by_slot(other)
    return add_entries(
        ledger, [other.cases[i] for i in order], {name: getattr(other, name)[order] for name in other.ENTRY}
    )


def units_in_order(ledger: Ledger | PooledLedger, count: int) -> tuple[list[int], Tensor, Tensor]:
    """What a ledger's entries own, whatever the order of its requests; there is one entry at least.

    Args:
        ledger: the ledger.
        count: how many units each slot owns.

    Returns:
        The positions of the entries in the order of their slots, the slots int64 (n,), and the places of their units in
        the reserve, int64 (n · count,).
    """
    order = by_slot(ledger)
    slots = torch.tensor([ledger.slots[entry] for entry in order])
    return order, slots, (count * slots[:, None] + torch.arange(count)).flatten()


def by_slot(ledger: AnyLedger) -> list[int]:
    """The positions of the entries in the order of their slots, whatever the order of the requests."""
    return sorted(range(len(ledger.slots)), key=lambda i: ledger.slots[i])
