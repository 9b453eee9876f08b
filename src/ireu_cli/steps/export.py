"""What is left of an edit after rounding to the dtype it is served in."""

import torch
from torch import Tensor

from ireu_cli.models.clip import DTYPES


def kept_share(full: Tensor, rounded: Tensor) -> float:
    """How much of a change survives, direction and size together.

    Args:
        full: the change in float32, any shape.
        rounded: the change between the rounded edited and the rounded original, same shape.

    Returns:
        ⟨full, rounded⟩ / (‖full‖ · max(‖full‖, ‖rounded‖)): 1 when nothing is lost, 0 when the change vanishes, and
        near 0 when rounding noise drowns it. Rounding is right on average, so a plain projection would hide that noise.
    """
    a, b = full.double().flatten(), rounded.double().flatten()
    size = float(a.norm())
    largest = max(size, float(b.norm()))
    return float(a @ b) / (size * largest) if size > 0 else 0.0


def kept_in_weights(original: dict[str, Tensor], delta: dict[str, Tensor], dtype: str) -> tuple[float, float]:
    """Return (`kept_share` over all edited weights, share of edited weights whose rounded value changes at all).

    Args:
        original: float32 weights.
        delta: float32 changes.
        dtype: the served dtype.
    """
    served = DTYPES[dtype]
    full, rounded = [], []
    for name in sorted(delta):
        base = original[name].float().cpu()
        full.append(delta[name].flatten())
        rounded.append(((base + delta[name]).to(served).float() - base.to(served).float()).flatten())
    whole, left = torch.cat(full), torch.cat(rounded)
    touched = whole != 0
    return kept_share(whole, left), float((left[touched] != 0).float().mean()) if bool(touched.any()) else 0.0
