"""Compare people by the features themselves, without a recogniser.

Features are centred on the retained people. If labelled photos allow, they are also whitened by the covariance within
people (shrunk towards the identity). On weak encoders, this finds a person far better than plain cosine.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.support.made import in_pieces

SHRINKAGE = 0.3
"""The share of the mean eigenvalue that is added to the covariance's diagonal."""


@dataclass(frozen=True)
class IdentitySpace:
    """A linear map after which cosine compares people: `mean` (d,), `whiten` (d, d)."""

    mean: Tensor
    whiten: Tensor
    kind: str

    def __call__(self, features: Tensor) -> Tensor:
        """Map features (n, d) to unit vectors (n, d), float64."""
        mapped = (features.double() - self.mean) @ self.whiten
        return torch.nn.functional.normalize(mapped, dim=-1)


def centred(people: Iterable[Tensor], at_once: int = 1024) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over groups of rows, float (n, d) each, with a limited number of rows at once.

    Yields:
        Rows of some groups, and the same rows minus their group's mean: float64 (rows, d) each.
    """
    return map(_centred, in_pieces(people, at_once))


def _centred(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    rows = torch.cat(list(groups)).double()
    sizes = torch.tensor([len(group) for group in groups])
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)
    means = torch.zeros(len(sizes), rows.shape[1], dtype=torch.float64).index_add_(0, owner, rows) / sizes[:, None]
    return rows, rows - means[owner]


def fit_space(people: Iterable[Tensor]) -> IdentitySpace:
    """Fit the space on other people's features.

    Args:
        people: float (n_i, d) a person, from the original encoder; read three times.

    Returns:
        A whitened space if there are at least max(30, d / 8) photos beyond each person's first, else centred cosine.
    """
    sizes = [len(person) for person in people]
    total = sum((rows.sum(0) for rows, _ in centred(people)), torch.zeros((), dtype=torch.float64))
    mean, d = total / sum(sizes), len(total)
    freedom = sum(sizes) - len(sizes)
    if freedom < max(30, d / 8):
        return IdentitySpace(mean, torch.eye(d, dtype=torch.float64), "centred cosine")
    within = sum((own.T @ own for _, own in centred(people)), torch.zeros((), dtype=torch.float64))
    covariance = within / freedom
    ridge = SHRINKAGE * covariance.diagonal().mean() + 1e-12
    values, vectors = torch.linalg.eigh(covariance + ridge * torch.eye(d, dtype=torch.float64))
    return IdentitySpace(mean, vectors @ torch.diag(values.rsqrt()) @ vectors.T, "whitened cosine")


def centroid(mapped: Tensor) -> Tensor:
    """The unit mean of a person's unit vectors: (n, d) to (d,)."""
    return torch.nn.functional.normalize(mapped.mean(0), dim=0)


def match_threshold(impostor_scores: Tensor, false_match_rate: float) -> float:
    """The similarity that a share `false_match_rate` of the impostor scores (n,) exceeds."""
    above = min(len(impostor_scores) - 1, int(false_match_rate * len(impostor_scores)))
    return float(impostor_scores.double().topk(above + 1).values[above])


@dataclass(frozen=True)
class Enrolment:
    """An enrolled person: unit `vector` (d,) float64, and the similarity that a match exceeds."""

    vector: Tensor
    threshold: float

    def matches(self, vectors: Tensor) -> Tensor:
        """Whether unit vectors (n, d) match the person: float64 (n,), 1 or 0; NaN for vectors that are NaN."""
        scores = vectors.double() @ self.vector
        return torch.where(torch.isfinite(scores), (scores > self.threshold).double(), torch.nan)


def enrol(photos: Tensor, others: Tensor, false_match_rate: float) -> Enrolment:
    """Enrol a person.

    Args:
        photos: unit vectors (n, d) of the person's photos, at least one.
        others: unit vectors (m, d) of other people's photos, at least one, which set the threshold.
        false_match_rate: share of the others that exceeds it.
    """
    vector = centroid(photos.double())
    return Enrolment(vector, match_threshold(others.double() @ vector, false_match_rate))
