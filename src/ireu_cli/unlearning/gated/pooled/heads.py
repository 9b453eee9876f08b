"""Make room in an attention layer: choose the heads that are needed least, and replace them with the others.

An attention layer writes y = W a + c, where a holds what its heads gathered, head after head. Heads that are taken away
leave an error in y. The others predict a part of what they gathered; that part is folded into W and c by least squares,
as `room` does it for hidden units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 1e-6
"""The share of the mean square that is added, so that values that are nearly the same do not cancel."""


@dataclass(frozen=True)
class SparedHeads:
    """Heads that can be taken away.

    `heads` are their numbers. `places` int64 (taken,) are their values among all heads' values. `added` float64 (d, n +
    1) is added to W, and its last column to c; where `places` are, it takes away what W had. `error` is the mean square
    that is left of y.
    """

    heads: tuple[int, ...]
    places: Tensor
    added: Tensor
    error: float


def spare_heads(gram: Tensor, written: Tensor, number: int, count: int) -> SparedHeads:
    """Choose heads one after the other: the next is the one with the smallest error after repair by the remaining ones.

    Args:
        gram: float64 (n + 1, n + 1), sum of products of a over tokens; the last row and column belong to a constant 1,
            so the number of tokens is in the corner.
        written: (d, n), W.
        number: how many heads there are; n is a multiple of it.
        count: how many to take, below `number`.
    """
    mean = gram / gram[-1, -1]
    wide = torch.cat([written.double(), torch.zeros(len(written), 1, dtype=torch.float64)], 1)
    size = written.shape[1] // number
    taken: tuple[int, ...] = ()
    for _ in range(count):
        free = (head for head in range(number) if head not in taken)
        taken = min(((*taken, head) for head in free), key=lambda some: _repaired(mean, wide, size, some)[1])
    added, error = _repaired(mean, wide, size, taken)
    return SparedHeads(taken, _places(size, taken), added, error)


def _places(size: int, heads: tuple[int, ...]) -> Tensor:
    return torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])


def _repaired(mean: Tensor, written: Tensor, size: int, heads: tuple[int, ...]) -> tuple[Tensor, float]:
    """What is added to W, and the mean square of y that is left, if some heads are taken away."""
    gone = torch.zeros(len(mean), dtype=torch.bool)
    gone[_places(size, heads)] = True
    among, across = mean[~gone][:, ~gone].clone(), mean[~gone][:, gone]
    among.diagonal().add_(_RIDGE * among.diagonal().mean())
    stand_in = torch.linalg.solve(among, across)
    added = torch.zeros_like(written)
    added[:, gone] = -written[:, gone]
    added[:, ~gone] = written[:, gone] @ stand_in.T
    return added, float(((added @ mean) * added).sum())
