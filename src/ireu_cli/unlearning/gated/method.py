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
from ireu_cli.unlearning.gated.edit_place import (
    carrying_block,
    carrying_names,
    compose_units,
    edited_names,
    is_pooled,
    pooled_names,
)
from ireu_cli.unlearning.gated.in_transformer import unlearn_gated
from ireu_cli.unlearning.gated.pooled.ledger import compose_pooled, join_pooled
from ireu_cli.unlearning.gated.pooled.run import unlearn_pooled
from ireu_cli.unlearning.gated.slots import leave
from ireu_cli.unlearning.gated.solve import join
from ireu_cli.unlearning.gated.solve_network import compose_gates, join_gates
from ireu_cli.unlearning.method import Plan, Work, refuse_depths
from ireu_cli.values import AnyLedger, GateLedger, Json, Ledger, PooledLedger, WeightDelta


@dataclass(frozen=True)
class GatedPlan(Plan):
    """`carrying` is the block that reaches the tokens, if any; `place` is where people are found."""

    carrying: int | None = None
    place: "_Place | None" = None


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
        return _places_in(encoder)[0].plan(encoder, config, taps)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Solve for each target.

        Raises:
            ArtifactError: earlier requests find people in another way.
        """
        place = _planned(work)
        if work.onto is not None and _LEDGERS[type(work.onto)] is not place:
            raise ArtifactError(
                "The earlier requests find people in other tokens than this one would",
                "Use the tap and gated.found_in of the earlier requests",
            )
        return place.run(work)


def refuse_other_ledger(encoder: ImageEncoder, ledger: AnyLedger, name: str) -> None:
    """Refuse requests for another kind of encoder; `name` is their delta's name in messages.

    Raises:
        ArtifactError: they are for another kind.
        ModelError: the method does not support this encoder.
    """
    if _LEDGERS[type(ledger)] not in _places_in(encoder):
        raise ArtifactError(
            f"The requests in {name} are for another kind of encoder than {encoder.architecture}",
            "Name a delta that was made for this encoder",
        )


def withdraw_cases(encoder: ImageEncoder, ledger: AnyLedger, cases: Sequence[str]) -> WeightDelta:
    """The change that remains without some requests.

    Raises:
        ArtifactError: the ledger is for another encoder.
    """
    refuse_other_ledger(encoder, ledger, "the delta")
    left: Any = ledger
    return _LEDGERS[type(ledger)].compose(encoder, leave(left, cases))


def join_ledgers(encoder: ImageEncoder, ledgers: Sequence[AnyLedger]) -> WeightDelta:
    """The change that the requests of several deltas make together; those of the first delta keep their places.

    Raises:
        ArtifactError: they do not reserve the same places, or are for another encoder.
        CapacityError: there are not enough places.
    """
    for ledger in ledgers:
        refuse_other_ledger(encoder, ledger, "a delta")
    if len({type(ledger) for ledger in ledgers}) > 1:
        raise ArtifactError(
            "The deltas find people in different tokens", "Merge deltas that were made with one tap and gated.found_in"
        )
    place = _LEDGERS[type(ledgers[0])]
    return place.compose(encoder, functools.reduce(place.join, ledgers))


def _places_in(encoder: ImageEncoder) -> tuple[_Place, ...]:
    """The places that an encoder offers; the first one plans for all of them."""
    if isinstance(encoder, HasBlocks):
        if encoder.no_detectors:
            raise ModelError(
                f"The method gated does not support {encoder.noun}: {encoder.no_detectors}",
                "Use --method ireu or global for generators that read several depths, or block for the head",
            )
        return _UNITS, _POOLED
    if isinstance(encoder, TakesGates):
        return (_GATES,)
    raise ModelError(
        f"The method gated does not support {encoder.architecture}", "Use another --method for this encoder"
    )


def _planned(work: Work) -> _Place:
    chosen = work.plan.place if isinstance(work.plan, GatedPlan) else None
    return chosen or _places_in(work.lens.encoder)[0]


def _plan_units(encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
    transformer = need_blocks(encoder, "An edit inside a block")
    wanted = {config.encoder.tap, *taps}
    refuse_depths(Gated.name, wanted)
    pooled = is_pooled(transformer, wanted, config.gated.found_in)
    carrying = carrying_block(transformer, wanted, pooled=pooled)
    if pooled and carrying is not None:
        # Tokens are only flagged before the carrying block.
        return GatedPlan(pooled_names(carrying), carrying_names(carrying), carrying=carrying, place=_POOLED)
    names = edited_names(transformer, carrying)
    # Before the carrying block, only the class token is flagged.
    moving = names if carrying is None else carrying_names(carrying)
    return GatedPlan(names, moving, class_token_only=carrying is None, carrying=carrying, place=_UNITS)


def _run_units(work: Work) -> tuple[WeightDelta, dict[str, Json]]:
    onto: Any = work.onto
    return unlearn_gated(work, onto, _carrying(work))


def _run_pooled(work: Work) -> tuple[WeightDelta, dict[str, Json]]:
    onto: Any = work.onto
    carrying = _carrying(work)
    assert carrying is not None  # noqa: S101 - a plan for all tokens has one
    return unlearn_pooled(work, onto, carrying)


def _carrying(work: Work) -> int | None:
    return work.plan.carrying if isinstance(work.plan, GatedPlan) else None


def _plan_gates(_encoder: ImageEncoder, _config: Config, _taps: Collection[Tap]) -> Plan:
    return Plan(list(GATE_TENSORS), list(GATE_TENSORS))


def _run_gates(work: Work) -> tuple[WeightDelta, dict[str, Json]]:
    onto: Any = work.onto
    return unlearn_gates(work, onto)


_UNITS = _Place(_plan_units, _run_units, join, compose_units)
_POOLED = _Place(_plan_units, _run_pooled, join_pooled, compose_pooled)
_GATES = _Place(_plan_gates, _run_gates, join_gates, lambda _encoder, ledger: compose_gates(ledger))
_LEDGERS: dict[type, _Place] = {Ledger: _UNITS, PooledLedger: _POOLED, GateLedger: _GATES}
