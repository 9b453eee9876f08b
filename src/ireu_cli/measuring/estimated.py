"""Values by person as one figure of the report."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.maths.stats import estimate
from ireu_cli.report import Figure, Role, State, Unit


def estimated(
    values: Sequence[Tensor],
    resamples: int,
    rng: torch.Generator,
    *,
    name: str,
    role: Role,
    state: State,
    measure: str,
    unit: Unit,
    generator: str | None = None,
    edit: str | None = None,
    attack: str | None = None,
    group: str | None = None,
    false_match_rate: float | None = None,
) -> Figure | None:
    """The mean of the finite values with its interval over people; None without any.

    Args:
        values: float (n_i,) a person.
        resamples: number of bootstrap resamples.
        rng: source of the resampling.
        name: what the figure is, and so on as the fields of `Figure`.
    """
    found = estimate((value[torch.isfinite(value)] for value in values), resamples, rng)
    if found is None:
        return None
    return Figure(
        name=name,
        role=role,
        state=state,
        measure=measure,
        generator=generator,
        edit=edit,
        attack=attack,
        group=group,
        false_match_rate=false_match_rate,
        value=found.value,
        low=found.low,
        high=found.high,
        photos=found.photos,
        people=found.people,
        unit=unit,
    )
