"""Saliency: known in closed form where the generator is, honest about pictures without a face."""

import cv2
import numpy as np
import pytest
import torch

from ireu_cli.drawing.drawn_faces import Likeness
from ireu_cli.errors import PhotoError
from ireu_cli.faces.align import crop_face, face_matrix
from ireu_cli.locating.saliency import locate_by_saliency, photo_saliency
from ireu_cli.maths.images.warp import warp
from ireu_cli.support.runtime import generator

POINTS = np.array([[40.0, 52.0], [71.0, 44.0], [60.0, 66.0], [52.0, 88.0], [78.0, 80.0]])


def smooth_picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    small = np.random.default_rng(0).integers(0, 256, (12, 14, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (140, 120), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


@pytest.mark.parametrize("shift", [0.0, 45.0])
def test_the_warp_is_the_one_that_photos_are_aligned_with(shift: float) -> None:
    """Also where the frame leaves the picture, whose border is reflected."""
    picture, points = smooth_picture(), POINTS + np.array([shift, 0])
    expected, _ = crop_face(picture, points, 112, 0.0)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    found = warp(pixels, torch.from_numpy(face_matrix(points, 112, 0.0))[None], 112)
    difference = np.abs(found[0].permute(1, 2, 0).numpy() - expected)
    assert difference.mean() < 1
    assert difference.max() < 8


def test_gradients_pass_through_the_warp_to_the_pixels_it_reads() -> None:
    pictures = torch.rand(2, 1, 6, 6, requires_grad=True)
    move = torch.tensor([[1.0, 0.0, -2.0], [0.0, 1.0, -1.0]]).expand(2, 2, 3)
    (gradient,) = torch.autograd.grad(warp(pictures, move, 2)[0].sum(), pictures)
    assert gradient[0, 0].nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert float(gradient[1].abs().max()) == 0


def weighted(weights: torch.Tensor, found: list[bool]) -> Likeness:
    """A generator and recogniser in one: the similarity is a weighted sum, another multiple for each picture."""

    def of(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = torch.arange(1.0, len(features) + 1)
        return scale * (features * weights).flatten(1).sum(1), torch.tensor(found)

    return of


def test_saliency_of_a_weighted_sum() -> None:
    weights, features, mean = torch.tensor([2.0, -3.0, 0.0]), torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.0, 5.0, 0])
    row = photo_saliency(features, mean, weighted(weights, [True, True, True]), 3)
    assert row is not None
    torch.testing.assert_close(row, 2 * torch.tensor([2.0, 9.0, 0.0]))


def test_saliency_of_tokens_is_summed_over_tokens() -> None:
    weights = torch.tensor([[1.0, 2.0], [-5.0, 0.0], [1.0, 1.0]])
    row = photo_saliency(torch.ones(3, 2), torch.zeros(3, 2), weighted(weights, [True]), 1)
    assert row is not None
    torch.testing.assert_close(row, torch.tensor([7.0, 3.0]))


def test_pictures_without_a_face_do_not_count() -> None:
    weights = torch.tensor([1.0, 1.0])
    row = photo_saliency(torch.ones(2), torch.zeros(2), weighted(weights, [False, True, False]), 3)
    assert row is not None
    torch.testing.assert_close(row, torch.tensor([2.0, 2.0]))
    assert photo_saliency(torch.ones(2), torch.zeros(2), weighted(weights, [False] * 3), 3) is None


def test_the_callers_features_are_left_alone() -> None:
    features = torch.ones(2)
    photo_saliency(features, torch.zeros(2), weighted(torch.ones(2), [True]), 1)
    assert not features.requires_grad
    assert features.grad is None


PLANTED = torch.arange(40) % 5 < 2


def test_planted_features_are_found_and_lost_photos_counted() -> None:
    noise = torch.rand(8, 40, generator=generator(0))
    located = locate_by_saliency([*(noise + 3 * PLANTED), None], 0.4, generator(1))
    assert torch.equal(located.mask.mask, PLANTED)
    evidence = located.evidence
    assert (evidence["photos"], evidence["photos_without_face"], evidence["chance"]) == (8, 1, 0.4)
    assert evidence["split_half"]["overlap"] == 1.0
    assert evidence["captured_saliency"]["mask"] > 0.7 > evidence["captured_saliency"]["random"]
    unplanted = locate_by_saliency(list(noise), 0.4, generator(1)).evidence
    assert unplanted["split_half"]["overlap"] == pytest.approx(0.4, abs=0.2)


def test_one_photo_has_no_halves_and_none_is_an_error() -> None:
    assert locate_by_saliency([torch.rand(40)], 0.4, generator(1)).evidence["split_half"] is None
    with pytest.raises(PhotoError, match="no face from any of the 3 target photos"):
        locate_by_saliency([None] * 3, 0.4, generator(1))


def test_half_precision_is_of_the_pixels_and_not_of_the_places() -> None:
    """Of a large picture, places in half precision are off by a quarter of a pixel and more."""
    side = 1024
    row = torch.linspace(0, 1, side, dtype=torch.float64)
    picture = (torch.sin(row * 800)[None, :] * torch.cos(row * 700)[:, None])[None, None]
    move = torch.tensor([[[1.0, 0.0, 0.4], [0.0, 1.0, -0.3]]], dtype=torch.float64)
    wanted = warp(picture, move, side)
    found = warp(picture.half(), move, side)
    assert found.dtype == torch.float16
    assert float((found.double() - wanted).abs().max()) < 2e-3
