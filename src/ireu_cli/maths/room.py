"""Make room in a layer: choose the hidden units that are needed least, and replace them with the others.

A hidden layer computes y = C a(x) + c. A unit that is taken away leaves an error in y. The error is smaller the better
the others' activations predict its own. Their prediction is folded into their columns of C and into c by least squares.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ireu_cli.support.doubles import doubles
from ireu_cli.values import Room

_RIDGE = 1e-6
"""The share of the mean square activation that is added, so that nearly equal units do not cancel.
"""
_SPARSE = 1e-2
"""The same for as many units as rows; it grows with the square of their ratio.

Few rows say little about many units, and rounding in single precision makes the rest arbitrary."""
_SILENT, _LAST = 1e-9, 1e100
"""The mean square, as a share of all units', below which a unit never does anything; and what stands for its size."""


def activation_gram(active: Tensor) -> Tensor:
    """Sum of products of activations (rows, n) and of a constant 1, which comes last: float64 (n + 1, n + 1)."""
    rows = torch.cat([active, active.new_ones(len(active), 1)], 1)
    return doubles(rows.T @ rows)


def folded(columns: Tensor, room: Room, places: Tensor | slice = slice(None)) -> Tensor:
    """The correction for reserved units that are taken away: all of them, or those at some places of the reserve.

    Args:
        columns: (d, n), C of the layer.
        room: the reserve.
        places: places of the units that are taken, int64 (t,).

    Returns:
        float64 (d, n - r + 1): added to the kept units' columns; the last column is added to the constant c.
    """
    return columns[:, room.units[places]].double() @ room.stand_in[:, places].double().T


@dataclass(frozen=True)
class HiddenLayer:
    """The weights of y = C act(W x + w) + c: W (n, d), w (n,), C (k, n) and c (k,), float64."""

    rows: Tensor
    biases: Tensor
    columns: Tensor
    constant: Tensor

    def with_units(self, room: Room, places: Tensor, rows: Tensor, biases: Tensor, columns: Tensor) -> "HiddenLayer":
        """The layer with other units at some places of a reserve, whose own work the kept units take over.

        Args:
            room: the reserve.
            places: places of the units that are taken, int64 (t,).
            rows: their weights (t, d).
            biases: their biases (t,).
            columns: what they write, (k, t).
        """
        new = replace(self, **{part.name: getattr(self, part.name).clone() for part in fields(self)})
        units, added = room.units[places], folded(self.columns, room, places)
        new.columns[:, room.kept] += added[:, :-1]
        new.constant.add_(added[:, -1])
        new.rows[units], new.biases[units] = rows.double(), biases.double()
        new.columns[:, units] = columns.double()
        return new


def make_room(gram: Tensor, sizes: Tensor, count: int) -> Room:
    """Choose the units whose loss can be repaired best.

    Units are chosen one after the other: the next is the one with the smallest error after repair by the remaining
    units. The error's square is |c_u|² / (G⁻¹)_uu, and taking a unit away is a rank-one step for G⁻¹.

    Args:
        gram: float64 (n + 1, n + 1), sum of products of activations over rows; the last row and column belong to a
            constant 1, so the number of rows is in the corner.
        sizes: (n,), squared norms |c_u|² of the units' columns.
        count: number of units to reserve, below n.
    """
    units, rows = len(sizes), float(gram[-1, -1])
    gram = gram / gram[-1, -1]
    steady = gram.clone()
    steady.diagonal()[:units] += max(_RIDGE, _SPARSE * (units / rows) ** 2) * gram.diagonal()[:units].mean()
    active = gram.diagonal()[:units]
    # They come last: in an encoder that was edited before, such units are somebody's detector.
    silent = active <= _SILENT * active.mean()
    taken = _least_missed(torch.linalg.inv(steady), torch.where(silent, _LAST, sizes.double()), count)
    free = torch.ones(units, dtype=torch.bool)
    free[taken] = False
    kept = free.nonzero().flatten()
    predictors = torch.cat([kept, torch.tensor([units])])
    stand_in = torch.linalg.solve(steady[predictors][:, predictors], gram[predictors][:, taken])
    return Room(taken, kept, stand_in)


def _least_missed(inverse: Tensor, sizes: Tensor, count: int) -> Tensor:
    """The units to take away one after the other: int64 (count,).

    A step subtracts an outer product from the inverse. Only its diagonal and one column are looked at before the next
    step, so the products are kept apart, and those of one column are summed when it is needed.

    Args:
        inverse: float64 (n + 1, n + 1), G⁻¹ of all units and the constant.
        sizes: float64 (n,), |c_u|².
        count: how many.
    """
    units = len(sizes)
    diagonal, free = inverse.diagonal()[:units].clone(), torch.ones(units, dtype=torch.bool)
    taken, steps = torch.empty(count, dtype=torch.int64), torch.zeros(count, units, dtype=torch.float64)
    for step in range(count):
        chosen = int((sizes / diagonal).masked_fill(~free, torch.inf).argmin())
        before = steps[:step]
        column = inverse[:units, chosen] - before[:, chosen] @ before
        # Rounding may have left a trace of what is gone.
        column = torch.where(free, column, 0.0)
        taken[step], free[chosen] = chosen, False
        steps[step] = column / column[chosen].sqrt()
        diagonal -= steps[step].square()
    return taken
