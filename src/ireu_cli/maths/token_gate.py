"""Keep a score that is made for one kind of token from firing on other tokens.

A transformer block uses the same hidden layer for every token. Image tokens lie elsewhere than the class token. So a
direction that tells the two kinds apart can lower the other tokens' scores and hardly change the class token's score.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ireu_cli.support.doubles import doubles

_WANTED = 60.0
"""How much more the wanted tokens' spread along the axis counts than that of the others: it adds to their scores.
"""
_STEPS = 20
"""The most times that a score is pushed further."""
_FAR = 8.0
"""Other tokens' scores are brought this many standard deviations below the threshold, if they lie apart enough."""


@dataclass
class TokenSums:
    """Running mean and covariance of one kind of token."""

    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    square: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, tokens: Tensor) -> None:
        """Add tokens: float (n, d), on any device; the sums stay there until `tensors` of theirs are asked for."""
        tokens = doubles(tokens)
        self.count += len(tokens)
        self.total = self.total.to(tokens.device) + tokens.sum(0)
        self.square = self.square.to(tokens.device) + tokens.T @ tokens

    def join(self, other: "TokenSums") -> None:
        """Add other tokens' sums."""
        self.count += other.count
        self.total = self.total + other.total
        self.square = self.square + other.square

    def mean(self) -> Tensor:
        """float64 (d,)."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """float64 (d, d)."""
        return self.square / self.count - torch.outer(self.mean(), self.mean())


@dataclass(frozen=True)
class Contrast:
    """`axis` (d,), after subtracting `offset`, is 0 at the mean of the wanted tokens and -1 at that of the others."""

    axis: Tensor
    offset: float


def contrast(wanted: TokenSums, others: TokenSums) -> Contrast:
    """Find the axis by linear discriminant analysis."""
    apart = wanted.mean() - others.mean()
    spread = _WANTED * wanted.covariance() + others.covariance()
    spread = spread + 1e-3 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64)
    axis = torch.linalg.solve(spread, apart)
    axis = axis / (axis @ apart)
    return Contrast(axis, float(axis @ wanted.mean()))


def gated(weights: Tensor, thresholds: Tensor, apart: Contrast, others: TokenSums) -> tuple[Tensor, Tensor]:
    """Change scores so that other tokens stay below their thresholds.

    Args:
        weights: float64 (d, n), a column for each score.
        thresholds: float64 (n,), the scores that count.
        apart: the axis between the two kinds of token.
        others: the tokens that must not fire.

    Returns:
        The weights and the thresholds to use; scores of the wanted tokens keep their distance to the threshold, except
        for their spread along the axis.
    """
    covariance, mean, axis = others.covariance(), others.mean(), apart.axis
    # A score plus s times the axis has the variance q + 2 s c + s² v.
    own, cross = (weights * (covariance @ weights)).sum(0), weights.T @ (covariance @ axis)
    along = float(axis @ covariance @ axis)
    # Along the axis the two kinds are 1 apart. If tokens spread too much along it, no strength can push them away.
    far = min(_FAR, 0.5 / along**0.5)
    strength = torch.zeros_like(thresholds)
    for _ in range(_STEPS):
        spread = (own + 2 * strength * cross + strength**2 * along).clamp_min(0).sqrt()
        highest = mean @ weights + strength * (mean @ axis) + far * spread
        missing = highest - (thresholds + strength * apart.offset)
        if not bool((missing > 0).any()):
            break
        strength = strength + 1.5 * missing.clamp_min(0)
    return weights + axis[:, None] * strength, thresholds + strength * apart.offset
