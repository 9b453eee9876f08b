"""`ireu unlearn --method gated`: the places where people are found and moved, by what an encoder offers.

Each place has a ledger of its own kind, which says what its requests are.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ireu_cli.encoders.family import HasBlocks, ImageEncoder, TakesGates, need_blocks
from ireu_cli.encoders.onnx_gates import GATE_TENSORS
from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.params import Config, Tap
from ireu_cli.unlearning.gated.behind_network import unlearn_gates
from ireu_cli.unlearning.gated.edit_place import carrying_block, carrying_names, compose_units, edited_names
from ireu_cli.unlearning.gated.in_transformer import unlearn_gated
from ireu_cli.unlearning.gated.slots import leave
from ireu_cli.unlearning.gated.solve import join
from ireu_cli.unlearning.gated.solve_network import compose_gates, join_gates
from ireu_cli.unlearning.method import Plan, Work, refuse_depths
from ireu_cli.values import GateLedger, Json, Ledger, WeightDelta


@dataclass(frozen=True)
class GatedPlan(Plan):
    """`carrying` is the block that reaches the tokens, if any."""

    carrying: int | None = None


@dataclass(frozen=True)
class _Place:
    """A place where people are found: its plan, its work, and how its ledgers are joined and turned into a delta."""

    plan: Callable[[ImageEncoder, Config, Collection[Tap]], Plan]
    run: Callable[[Work], tuple[WeightDelta, dict[str, Json]]]
    join: Callable[[Any, Any], Any]
    compose: Callable[[ImageEncoder, Any], WeightDelta]


class Gated:
    """Finds people in closed form and moves their features."""

    name = "gated"
    keeps_requests = True

    def passes_over(self, key: str) -> bool:
        """It ignores all settings of training."""
        return key.startswith("unlearn.")

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """The hidden units and, for taps of many tokens, a carrying block; for a network, the gates behind it."""
        return _place_in(encoder).plan(encoder, config, taps)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Solve for each target."""
        return _place_in(work.lens.encoder).run(work)


def refuse_other_ledger(encoder: ImageEncoder, ledger: Ledger | GateLedger, name: str) -> None:
    """Refuse requests for another kind of encoder; `name` is their delta's name in messages.

    Raises:
        ArtifactError: they are for another kind.
        ModelError: the method does not support this encoder.
    """
    if _LEDGERS[type(ledger)] is not _place_in(encoder):
        raise ArtifactError(
            f"The requests in {name} are for another kind of encoder than {encoder.architecture}",
            "Name a delta that was made for this encoder",
        )


def withdraw_cases(encoder: ImageEncoder, ledger: Ledger | GateLedger, cases: Sequence[str]) -> WeightDelta:
    """The change that remains without some requests.

    Raises:
        ArtifactError: the ledger is for another encoder.
    """
    refuse_other_ledger(encoder, ledger, "the delta")
    left: Any = ledger
    return _LEDGERS[type(ledger)].compose(encoder, leave(left, cases))


def join_ledgers(encoder: ImageEncoder, ledgers: Sequence[Ledger | GateLedger]) -> WeightDelta:
    """The change that the requests of several deltas make together; those of the first delta keep their places.

    Raises:
        ArtifactError: they do not reserve the same places, or are for another encoder.
        CapacityError: there are not enough places.
    """
    for ledger in ledgers:
        refuse_other_ledger(encoder, ledger, "a delta")
    place = _place_in(encoder)
    return place.compose(encoder, functools.reduce(place.join, ledgers))


def _place_in(encoder: ImageEncoder) -> _Place:
    if isinstance(encoder, HasBlocks):
        return _UNITS
    if isinstance(encoder, TakesGates):
        return _GATES
    raise ModelError(
        f"The method gated does not support {encoder.architecture}", "Use another --method for this encoder"
    )


def _plan_units(encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
    transformer = need_blocks(encoder, "An edit inside a block")
    wanted = {config.encoder.tap, *taps}
    refuse_depths(Gated.name, wanted)
    carrying = carrying_block(transformer, wanted)
    names = edited_names(transformer, carrying)
    # Before the carrying block, only the class token is flagged.
    moving = names if carrying is None else carrying_names(carrying)
    return GatedPlan(names, moving, class_token_only=carrying is None, carrying=carrying)


def _run_units(work: Work) -> tuple[WeightDelta, dict[str, Json]]:
    carrying = work.plan.carrying if isinstance(work.plan, GatedPlan) else None
    onto: Any = work.onto
    return unlearn_gated(work, onto, carrying)


def _plan_gates(_encoder: ImageEncoder, _config: Config, _taps: Collection[Tap]) -> Plan:
    return Plan(list(GATE_TENSORS), list(GATE_TENSORS))


def _run_gates(work: Work) -> tuple[WeightDelta, dict[str, Json]]:
    onto: Any = work.onto
    return unlearn_gates(work, onto)


_UNITS = _Place(_plan_units, _run_units, join, compose_units)
_GATES = _Place(_plan_gates, _run_gates, join_gates, lambda _encoder, ledger: compose_gates(ledger))
_LEDGERS: dict[type[Ledger] | type[GateLedger], _Place] = {Ledger: _UNITS, GateLedger: _GATES}
