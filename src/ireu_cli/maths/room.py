"""Making room in a layer: which hidden units are missed least, and what stands in for them.

A hidden layer computes y = C a(x) + c. A unit that is taken away leaves an error in y, the less the better the others'
activations predict its own; what they predict is folded into their columns of C and into c by least squares.
"""

import torch
from torch import Tensor

from ireu_cli.values import Room

_RIDGE = 1e-6
"""Of the mean square activation: keeps units that are nearly copies of each other from cancelling in large numbers."""
_SPARSE = 1e-2
"""The same where there are as many units as rows, by the square of their ratio: what few rows say of many units is
chance, and rounding in single precision turns what they leave open into anything."""


def activation_gram(active: Tensor) -> Tensor:
    """Sum of products of activations (rows, n) and of a constant 1, which comes last: float64 (n + 1, n + 1)."""
    rows = torch.cat([active, torch.ones(len(active), 1)], 1)
    return (rows.T @ rows).double()


def folded(columns: Tensor, room: Room, places: Tensor | slice = slice(None)) -> Tensor:
    """What makes up for reserved units that are taken away, of all or of those at some places of the reserve.

    Args:
        columns: (d, n), C of the layer.
        room: the reserve.
        places: of the units that are taken, int64 (t,).

    Returns:
        float64 (d, n - r + 1): added to the kept units' columns and, the last one, to the constant c.
    """
    return columns[:, room.units[places]].double() @ room.stand_in[:, places].double().T


def make_room(gram: Tensor, sizes: Tensor, count: int) -> Room:
    """Choose the units whose loss is repaired best.

    One after the other: the unit whose error, repaired by those that are left, is smallest. The error's square is
    |c_u|² / (G⁻¹)_uu, and taking a unit away is a rank-one step for G⁻¹.

    Args:
        gram: float64 (n + 1, n + 1), sum of products of activations over rows; the last row and column belong to a
            constant 1, so that their number stands in the corner.
        sizes: (n,), squared norms |c_u|² of the units' columns.
        count: number of units to reserve, below n.
    """
    units, rows = len(sizes), float(gram[-1, -1])
    gram = gram / gram[-1, -1]
    steady = gram.clone()
    steady.diagonal()[:units] += max(_RIDGE, _SPARSE * (units / rows) ** 2) * gram.diagonal()[:units].mean()
    inverse, taken = torch.linalg.inv(steady), []
    free = torch.ones(units, dtype=torch.bool)
    for _ in range(count):
        errors = sizes.double() / inverse.diagonal()[:units]
        chosen = int(errors.masked_fill(~free, torch.inf).argmin())
        taken.append(chosen)
        free[chosen] = False
        column = inverse[:, chosen].clone()
        inverse = inverse - torch.outer(column, column) / column[chosen]
        inverse[chosen, :], inverse[:, chosen] = 0, 0
        inverse[chosen, chosen] = 1
    kept = free.nonzero().flatten()
    predictors = torch.cat([kept, torch.tensor([units])])
    reserve = torch.tensor(taken, dtype=torch.int64)
    stand_in = torch.linalg.solve(steady[predictors][:, predictors], gram[predictors][:, reserve])
    return Room(reserve, kept, stand_in)
