"""Erase what tells people apart, linearly and with the least change.

The concept-erasure projection of Belrose et al. (LEACE, arXiv 2306.03819): with T the covariance of features and B
that of people's means, P = T^½ Q Qᵀ T^-½, where Q spans the leading eigenvectors of T^-½ B T^-½. x - P (x - μ) is
uncorrelated with the person, as far as the leading directions go, and is nearest to x in the metric of T.
"""

import torch
from torch import Tensor

_RIDGE = 1e-3
"""The share of the mean variance that is added to T."""


def eraser(centred: Tensor, groups: Tensor, rank: int) -> Tensor:
    """P: float64 (d, d).

    Args:
        centred: float (n, d), features without their mean.
        groups: int64 (n,), equal where features belong to one person (and, for tokens, to one place in the picture).
        rank: number of directions, at most d.
    """
    x = centred.double()
    count = torch.bincount(groups)
    means = torch.zeros(len(count), x.shape[1], dtype=torch.float64).index_add_(0, groups, x)
    means = means / count.clamp_min(1)[:, None]
    several = count[groups] >= 2
    within = (x - means[groups])[several]
    total = x.T @ x / len(x)
    # This is unbiased: the rest of the total is the spread of people, not that of their photos' means.
    between = total - within.T @ within / (int(several.sum()) - int((count >= 2).sum()))
    total.diagonal().add_(_RIDGE * total.diagonal().mean())
    values, vectors = torch.linalg.eigh(total)
    root, inverse_root = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    _, leading = torch.linalg.eigh(inverse_root @ between @ inverse_root)
    leading = leading[:, -rank:]
    found: Tensor = root @ leading @ leading.T @ inverse_root
    return found


def reduced_regression(
    inputs: Tensor, outputs: Tensor, rank: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of a given rank: outputs ≈ inputs V Uᵀ + c.

    Args:
        inputs: float (n, d).
        outputs: float (n, k).
        rank: r, at most min(d, k).
        weights: float (n,), how much each row's square counts; None: all the same.

    Returns:
        V (d, r), U (k, r) with orthonormal columns, and c (k,), all float64.
    """
    ones = torch.ones(len(inputs), 1, dtype=inputs.dtype)
    x = torch.cat([inputs, ones], 1)
    weighted = x if weights is None else x * weights[:, None]
    gram, cross = (weighted.T @ x).double(), (weighted.T @ outputs).double()
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())
    full = torch.linalg.solve(gram, cross)
    mean = gram[-1, :-1] / gram[-1, -1]
    spread = gram[:-1, :-1] / gram[-1, -1] - torch.outer(mean, mean)
    _, vectors = torch.linalg.eigh(full[:-1].T @ spread @ full[:-1])
    leading = vectors[:, -rank:]
    inner = full[:-1] @ leading
    return inner, leading, full[-1] + mean @ (full[:-1] - inner @ leading.T)
