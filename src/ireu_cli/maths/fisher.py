"""Variance between people divided by variance within people, feature by feature, in one pass over the photos."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class FisherSums:
    """Running sums that hold one person at a time, so that memory does not grow with the number of photos.

    A person with one photo says nothing about variance within, and is left out.
    """

    people: int = 0
    photos: int = 0
    within: Tensor = field(default_factory=lambda: torch.zeros(()))
    mean_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    mean_square_sum: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add_person(self, features: Tensor) -> None:
        """Add all photos of one person: float (n, …, d)."""
        if len(features) < 2:
            return
        features = features.double()
        mean = features.mean(0)
        self.people += 1
        self.photos += len(features)
        self.within = self.within + (features - mean).square().sum(0)
        self.mean_sum = self.mean_sum + mean
        self.mean_square_sum = self.mean_square_sum + mean.square()

    def ratio(self) -> Tensor:
        """The Fisher ratio: float32 (d,); token taps are summed over tokens before the division.

        Both variances are unbiased. The spread within people also adds to the variance of means; this part is not
        removed, because it does not change the order of features at equal photo counts.
        """
        between = (self.mean_square_sum - self.mean_sum.square() / self.people) / (self.people - 1)
        within = self.within / (self.photos - self.people)
        dims = tuple(range(between.ndim - 1))
        between, within = (between.sum(dims), within.sum(dims)) if dims else (between, within)
        return (between / within.clamp_min(1e-12)).float()
