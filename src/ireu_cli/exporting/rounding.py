"""How much of an edit is left after rounding to the dtype that is served."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ireu_cli.values import WEIGHTS_AT_ONCE


def kept_share(full: Tensor, rounded: Tensor) -> float:
    """How much of a change survives, direction and size together.

    Args:
        full: the change in float32, any shape.
        rounded: the change between the rounded edited and the rounded original, same shape.

    Returns:
        ⟨full, rounded⟩ / (‖full‖ · max(‖full‖, ‖rounded‖)): 1 when nothing is lost or nothing was to change, 0 when the
        change vanishes, and near 0 when rounding noise drowns it. Rounding is right on average, so a plain projection
        would hide that noise.
    """
    a, b = full.double().flatten(), rounded.double().flatten()
    return _share(float(a @ b), float(a @ a), float(b @ b))


def kept_in_weights(
    original: Mapping[str, Callable[[], Tensor]], delta: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
) -> tuple[float, float]:
    """Return (`kept_share` over all edited weights, share of edited weights whose rounded value changes at all).

    Args:
        original: for each edited weight, a function that reads it; one is held at a time.
        delta: float32 changes.
        dtypes: the dtype that each weight is written in.
    """
    sums, touched, changed = torch.zeros(3, dtype=torch.float64), 0, 0
    for name, read in sorted(original.items()):
        parts = zip(*(torch.split(each.flatten(), WEIGHTS_AT_ONCE) for each in (read(), delta[name])), strict=True)
        for base, whole in ((first.float().cpu(), second) for first, second in parts):
            left = (base + whole).to(dtypes[name]).float() - base.to(dtypes[name]).float()
            pairs = (whole, left), (whole, whole), (left, left)
            sums += torch.stack([(one * other).sum(dtype=torch.float64) for one, other in pairs])
            touched += int((whole != 0).sum())
            changed += int(((whole != 0) & (left != 0)).sum())
    return _share(*sums.tolist()), changed / max(touched, 1)


def _share(product: float, full: float, rounded: float) -> float:
    """`kept_share` from ⟨full, rounded⟩, ‖full‖² and ‖rounded‖²."""
    if full == 0:
        return float(rounded == 0)
    return product / math.sqrt(full * max(full, rounded))
