"""Locating: planted identity features are found, and the evidence tells a finding from an accident."""

import pytest
import torch

from ireu_cli.errors import PhotoError
from ireu_cli.locating.scores import absolute_shifts, locate_by_swap, locate_by_variance, locate_control
from ireu_cli.support.runtime import generator

PLANTED = torch.arange(40) % 5 < 2
"""16 of 40 features carry identity: k = 0.4."""


def planted_shifts(strength: float) -> torch.Tensor:
    noise = torch.rand(8, 6, 40, generator=generator(0))
    return noise + strength * PLANTED


def test_swap_finds_planted_features_and_knows_it() -> None:
    located = locate_by_swap(planted_shifts(2), 0.4, generator(1))
    assert torch.equal(located.mask.mask, PLANTED)
    evidence = located.evidence
    assert evidence["overlap_across_partners"]["mean"] == 1.0
    assert evidence["split_half"]["overlap"] == 1.0
    assert evidence["captured_energy"]["mask"] > 0.8 > evidence["captured_energy"]["random"]


def test_swap_without_anything_to_find_stays_near_chance() -> None:
    evidence = locate_by_swap(planted_shifts(0), 0.4, generator(1)).evidence
    assert evidence["chance"] == 0.4
    assert evidence["overlap_across_partners"]["mean"] == pytest.approx(0.4, abs=0.12)


def test_one_partner_and_one_photo_have_no_overlap_to_report() -> None:
    evidence = locate_by_swap(planted_shifts(2)[:1, :1], 0.4, generator(1)).evidence
    assert evidence["overlap_across_partners"] is None
    assert evidence["split_half"] is None


def test_absolute_shifts_average_over_tokens() -> None:
    original, swapped = torch.zeros(3, 4), torch.stack([torch.ones(3, 4), -2 * torch.ones(3, 4)])
    found = absolute_shifts([(original, swapped)])
    assert found.shape == (1, 2, 4)
    assert found[0, :, 0].tolist() == [1, 2]
    assert absolute_shifts([(original[0], swapped[:, 0])]).shape == (1, 2, 4)


def test_variance_finds_features_that_differ_between_people() -> None:
    rng = generator(2)
    people = [torch.randn(4, 40, generator=rng) + 5 * torch.randn(40, generator=rng) * PLANTED for _ in range(30)]
    located = locate_by_variance(people, 0.4, generator(3))
    assert torch.equal(located.mask.mask, PLANTED)
    assert located.evidence["split_half"]["overlap"] == 1.0
    assert located.evidence["people"] == 30


def test_variance_refuses_too_few_people() -> None:
    with pytest.raises(PhotoError, match="3 people have two photos"):
        locate_by_variance([torch.randn(2, 4)] * 3 + [torch.randn(1, 4)] * 9, 0.4, generator(0))


def test_controls() -> None:
    everything = locate_control(40, 0.4, "all", generator(0))
    assert everything.mask.kept == 40
    random = locate_control(40, 0.4, "random", generator(0))
    assert random.mask.kept == 16
    assert not torch.equal(random.mask.mask, locate_control(40, 0.4, "random", generator(1)).mask.mask)
