"""Find the features that carry identity: scores, a mask, and the evidence that the mask is no accident."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ireu_cli.errors import PhotoError
from ireu_cli.maths.fisher import FisherSums
from ireu_cli.maths.masks import captured_energy, mean_overlap, rank_correlation, top_mask
from ireu_cli.values import FeatureMask, Json, Located


def absolute_shifts(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """|Δz| of every photo and partner, with Δz = e(x₋) − e(F(x₋, x_a)).

    Args:
        pairs: for each photo, its features (…, d) and those of its swapped versions (partners, …, d).

    Returns:
        float32 (photos, partners, d); token taps are averaged over tokens, so memory does not grow with them.
    """
    rows = [(original - swapped).abs().float() for original, swapped in pairs]
    return torch.stack([row.mean(1) if row.ndim == 3 else row for row in rows])


def locate_by_swap(shifts: Tensor, fraction: float, rng: torch.Generator) -> Located:
    """Score by the mean |Δz| over photos and partners (the paper's locating step).

    Args:
        shifts: float (photos, partners, d), from `absolute_shifts`.
        fraction: share k of the features to keep.
        rng: draws the halves and the random control.
    """
    score = shifts.mean((0, 1))
    mask = top_mask(score, fraction)
    partners = torch.stack([top_mask(shifts[:, partner].mean(0), fraction) for partner in range(shifts.shape[1])])
    order = torch.randperm(len(shifts), generator=rng)
    halves = [shifts[part].mean((0, 1)) for part in order.chunk(2)]
    control = top_mask(torch.rand(len(score), generator=rng), fraction)
    evidence: dict[str, Json] = {
        "chance": float(mask.sum()) / len(mask),
        "photos": shifts.shape[0],
        "partners": shifts.shape[1],
        "overlap_across_partners": _mean_and_spread(mean_overlap(partners)),
        "split_half": split_half(halves, fraction),
        "captured_energy": {
            "mask": captured_energy(mask, shifts),
            "random": captured_energy(control, shifts),
            "all": 1.0,
        },
    }
    return Located(FeatureMask(mask, score), evidence)


def locate_by_variance(people: Iterable[Tensor], fraction: float, rng: torch.Generator) -> Located:
    """Score by the Fisher ratio, variance between people over variance within people; needs labels, but no swapper.

    Args:
        people: float (n_i, …, d) a person.
        fraction: share k of the features to keep.
        rng: draws the random control. The halves take every second person.

    Raises:
        PhotoError: fewer than four people have two photos (halves cannot be compared), or all features are alike.
    """
    whole, halves = FisherSums(), (FisherSums(), FisherSums())
    for person in people:
        if len(person) > 1:
            halves[whole.people % 2].add_person(person)
            whole.add_person(person)
    if whole.people < 4 or min(half.people for half in halves) < 2:
        raise PhotoError(
            f"Only {whole.people} people have two photos or more, and the variance method needs more people",
            "Add labelled people with --retain, or use --method swap",
        )
    score = whole.ratio()
    total = float(score.sum())
    if not 0 < total < float("inf"):
        raise PhotoError(
            "The photos do not differ from person to person, so no feature tells people apart",
            "Check that they are photos of several people",
        )
    mask = top_mask(score, fraction)
    control = top_mask(torch.rand(len(score), generator=rng), fraction)
    share = score / total
    evidence: dict[str, Json] = {
        "chance": float(mask.sum()) / len(mask),
        "photos": whole.photos,
        "people": whole.people,
        "overlap_across_partners": None,
        "split_half": split_half([half.ratio() for half in halves], fraction),
        "captured_ratio": {"mask": float(share[mask].sum()), "random": float(share[control].sum()), "all": 1.0},
    }
    return Located(FeatureMask(mask, score), evidence)


def locate_control(features: int, fraction: float, method: str, rng: torch.Generator) -> Located:
    """Return a control mask: `random` features of the same number, or `all` features."""
    score = torch.rand(features, generator=rng) if method == "random" else torch.ones(features)
    mask = top_mask(score, fraction if method == "random" else 1.0)
    evidence: dict[str, Json] = {
        "chance": float(mask.sum()) / features,
        "overlap_across_partners": None,
        "split_half": None,
    }
    return Located(FeatureMask(mask, score), evidence)


def split_half(scores: Sequence[Tensor], fraction: float) -> Json:
    """Agreement of the scores (d,) of two halves of the evidence; None without two halves."""
    if len(scores) < 2:
        return None
    overlap = mean_overlap(torch.stack([top_mask(score, fraction) for score in scores]))
    return {"overlap": overlap[0] if overlap else None, "rank_correlation": rank_correlation(scores[0], scores[1])}


def _mean_and_spread(pair: tuple[float, float] | None) -> Json:
    return None if pair is None else {"mean": pair[0], "standard_deviation": pair[1]}
