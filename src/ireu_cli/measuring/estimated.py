"""Turn values by person into one figure of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.stats import estimate
from ireu_cli.report import Figure, Role, State, Unit


@dataclass(frozen=True, kw_only=True)
class About:
    """What a figure is about, with the fields of `Figure`."""

    name: str
    role: Role
    state: State
    measure: str
    unit: Unit
    generator: str | None = None
    edit: str | None = None
    attack: str | None = None
    group: str | None = None
    false_match_rate: float | None = None


def estimated(values: Sequence[Tensor], about: About, resamples: int, rng: torch.Generator) -> Figure | None:
    """The mean of the finite values with its interval over people; None without any.

    Args:
        values: float (n_i,) a person.
        about: what the figure is about.
        resamples: number of bootstrap resamples.
        rng: source of the resampling.
    """
    found = estimate((value[torch.isfinite(value)] for value in values), resamples, rng)
    if found is None:
        return None
    return Figure(
        **vars(about),
        value=found.value,
        low=found.low,
        high=found.high,
        photos=found.photos,
        people=found.people,
    )
