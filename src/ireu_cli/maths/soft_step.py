"""Two hidden units that say whether a score is above a threshold: about 0 below it, about 1 above it.

With a = (w·h - t) / rise and an activation that is 0 far below zero and the identity far above (GELU, its sigmoid
form, ReLU), r(h) = [act(s a) - act(s (a - 1))] / s goes from 0 at a = 0 to 1 at a = 1; the sharpness s decides how
sharp its two corners are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SoftStep:
    """The steepness of the step: `rise` in units of the score, `sharpness` s without a unit."""

    rise: float
    sharpness: float

    def rows(self, weight: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """The two units' weights (2, d) and biases (2,) for the layer's inputs.

        Args:
            weight: (d,), w.
            threshold: t.
        """
        steep = self.sharpness / self.rise
        biases = torch.tensor([-steep * threshold, -steep * threshold - self.sharpness], dtype=weight.dtype)
        return steep * weight.expand(2, -1), biases

    def columns(self, change: Tensor) -> Tensor:
        """The two units' output columns (d, 2), for a change (d,) that is added above the threshold."""
        return torch.stack([change, -change], dim=1) / self.sharpness
