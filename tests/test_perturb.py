"""Adversarial noise: within its budget to the bit, the best try is kept, and the model is left as it was."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ireu_cli.attacks.perturb import NO_FACE, PhotoLoss, epsilon_budget, perturb, towards_face, towards_features
from ireu_cli.encoders.clip import Encoder, read_tap
from ireu_cli.support.runtime import generator

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalise(photos: Tensor) -> Tensor:
    return (photos - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def pictured(pixels: Tensor) -> Tensor:
    return pixels * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def photos(n: int = 3, name: str = "photos") -> Tensor:
    """Whole grey levels, black and white among them."""
    levels = torch.randint(-40, 296, (n, 3, 16, 16), generator=generator(0, name)).clamp(0, 255)
    return levels / 255


def encode(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    return lambda pixels: read_tap(encoder.model, pixels, "pooled")


def feature_loss(encoder: Encoder, n: int = 3) -> PhotoLoss:
    with torch.inference_mode():
        wanted = encode(encoder)(normalise(photos(n, "others")))
    return towards_features(encode(encoder), wanted)


def scripted(values: list[list[float]]) -> PhotoLoss:
    """Each call gives the next values, with a slope that pushes every pixel down."""
    script: Iterator[list[float]] = iter(values)

    def of(pixels: Tensor) -> Tensor:
        slope = pixels.flatten(1).sum(1)
        return torch.tensor(next(script)) + slope - slope.detach()

    return of


ONE = torch.ones(1)


def travelled(values: list[list[float]]) -> Tensor:
    """How many steps of full length each photo's best try is away; one more value than steps."""
    start = torch.full((len(values[0]), 3, 2, 2), 0.5)
    found = perturb(start, scripted(values), ONE / 4, 0 * ONE, ONE, len(values) - 1)
    moved = (start - found).flatten(1) * 16
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    return moved[:, 0]


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 64.0])
def test_the_budget_and_the_range_of_pixels_are_kept_and_used(tiny: Encoder, epsilon: float) -> None:
    clean = photos()
    found = pictured(perturb(normalise(clean), feature_loss(tiny), *epsilon_budget(epsilon, MEAN, STD), 10))
    assert epsilon / 255 * 0.75 < float((found - clean).abs().max()) <= epsilon / 255 + 1e-6
    assert float(found.min()) >= -1e-6
    assert float(found.max()) <= 1 + 1e-6


def test_the_budget_is_kept_to_the_bit() -> None:
    """Numbers that need no rounding: steps add up to the budget and no further, and stop at the range."""
    clean = torch.full((2, 3, 2, 2), 0.5)
    clean[1] = 3 / 64
    budget, low, high = epsilon_budget(255 / 16, (0, 0, 0), (1, 1, 1))
    found = perturb(clean, lambda x: x.flatten(1).sum(1), budget, low, high, 9)
    assert torch.equal(found[0], torch.full((3, 2, 2), 0.5 - 1 / 16))
    assert torch.equal(found[1], torch.zeros(3, 2, 2))


@pytest.mark.parametrize(
    ("sign", "expected"),
    [(1, [-1 / 64, 0, 1 - 1 / 8, 65 / 64 - 1 / 8]), (-1, [1 / 8 - 1 / 64, 1 / 8, 1, 65 / 64])],
)
def test_pixels_that_rounding_left_outside_the_range_may_stay(sign: int, expected: list[float]) -> None:
    clean = torch.tensor([-1 / 64, 0, 1, 65 / 64]).expand(1, 3, 1, 4)

    def loss(pixels: Tensor) -> Tensor:
        return sign * pixels.flatten(1).sum(1)

    assert torch.equal(perturb(clean, loss, 0 * ONE, 0 * ONE, ONE, 8), clean)
    assert perturb(clean, loss, ONE / 8, 0 * ONE, ONE, 8)[0, 0, 0].tolist() == expected


def test_each_channel_has_its_own_budget_and_range() -> None:
    budget, low, high = epsilon_budget(51, (0.0, 0.5, 0.25), (1.0, 0.5, 0.25))
    torch.testing.assert_close(budget, torch.tensor([0.2, 0.4, 0.8]))
    torch.testing.assert_close(low, torch.tensor([0.0, -1.0, -1.0]))
    torch.testing.assert_close(high, torch.tensor([1.0, 1.0, 3.0]))
    found = perturb(torch.zeros(1, 3, 2, 2), lambda x: -x.flatten(1).sum(1), budget, low, high, 8)
    torch.testing.assert_close(found[0, :, 1, 1], budget)


def test_every_photo_comes_nearer_and_a_larger_budget_nearer_still(tiny: Encoder) -> None:
    clean, loss = normalise(photos()), feature_loss(tiny)
    values = [
        loss(perturb(clean, loss, *epsilon_budget(epsilon, MEAN, STD), 20)).detach() for epsilon in (0.0, 4.0, 32.0)
    ]
    assert torch.equal(values[0], loss(clean).detach())
    assert bool((values[1] < values[0]).all())
    assert bool((values[2] < values[1]).all())


def test_a_large_budget_does_not_overshoot_what_is_near(tiny: Encoder) -> None:
    clean = normalise(photos())
    near = encode(tiny)(normalise((photos() + photos(3, "others") / 50).clamp(0, 1))).detach()
    loss = towards_features(encode(tiny), near)
    found = perturb(clean, loss, *epsilon_budget(64, MEAN, STD), 20)
    assert bool((loss(found) < 0.2 * loss(clean)).all())


def test_a_photo_already_at_its_goal_stays(tiny: Encoder) -> None:
    clean = normalise(photos())
    loss = towards_features(encode(tiny), encode(tiny)(clean).detach())
    assert float((perturb(clean, loss, *epsilon_budget(8, MEAN, STD), 5) - clean).abs().max()) == 0


def test_the_loss_is_squared_distance_over_squared_norm() -> None:
    wanted = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    loss = towards_features(lambda x: x.reshape(2, 2, 2), wanted)
    found = loss(torch.tensor([3.0, 4, 0, 5, 1, 0, 0, 1]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0]))


def test_the_best_try_is_kept_for_each_photo() -> None:
    values = [[5.0, 1.0, 5.0], [4.0, 2.0, 4.0], [6.0, 3.0, 3.0], [7.0, 4.0, 2.0]]
    assert travelled(values).tolist() == [1, 0, 3]
    assert travelled([[5.0], [5.0], [5.0]]).tolist() == [0]


def test_after_a_worse_try_a_photo_goes_on_from_its_best_in_half_steps() -> None:
    nan = float("nan")
    values = [[5.0, 5.0, 5.0], [4.0, 4.0, 4.0], [9.0, 3.0, nan], [3.0, 9.0, 9.0], [2.0, 9.0, 1.0]]
    assert travelled(values).tolist() == [2, 2, 1.25]
    assert travelled([[5.0], [4.0], [3.0], [2.0], [9.0], [0.0]]).tolist() == [3.5]  # the fifth is at the border


def test_what_is_no_number_is_never_the_best() -> None:
    nan, inf = float("nan"), float("inf")
    assert travelled([[5.0, nan], [4.0, nan], [nan, 3.0]]).tolist() == [1, 0]
    assert travelled([[5.0], [-inf], [6.0]]).tolist() == [0]


def test_a_gradient_that_is_no_number_stops_its_own_photo_only() -> None:
    def loss(pixels: Tensor) -> Tensor:
        root = (pixels[:, 0, 0, 0] * torch.tensor([0.0, 1.0])).sqrt()  # an infinite slope times nought at photo 0
        return root + pixels.flatten(1).sum(1)

    start = torch.full((2, 3, 2, 2), 0.5)
    found = perturb(start, loss, ONE / 8, 0 * ONE, ONE, 4)
    assert torch.equal(found[0], start[0])
    assert torch.equal(found[1], start[1] - 1 / 8)


@pytest.mark.parametrize("asks_for_gradients", [False, True])
def test_the_model_is_left_as_it_was(tiny: Encoder, asks_for_gradients: bool) -> None:
    tiny.model.requires_grad_(asks_for_gradients)
    before = {name: tensor.detach().clone() for name, tensor in tiny.model.state_dict().items()}
    clean = normalise(photos())
    kept = clean.clone()
    found = perturb(clean, feature_loss(tiny), *epsilon_budget(8, MEAN, STD), 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.model.state_dict().items())
    assert all(part.grad is None and part.requires_grad == asks_for_gradients for part in tiny.model.parameters())
    assert torch.equal(clean, kept)
    assert clean.grad is None
    assert not clean.requires_grad
    assert not found.requires_grad


def test_it_is_the_same_each_time_and_under_any_mode_of_the_caller(tiny: Encoder) -> None:
    expected = perturb(normalise(photos()), feature_loss(tiny), *epsilon_budget(8, MEAN, STD), 5)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            found = perturb(normalise(photos()), feature_loss(tiny), *epsilon_budget(8, MEAN, STD), 5)
        assert torch.equal(found, expected)


def test_half_precision_photos_are_attacked_in_single_precision() -> None:
    clean = torch.full((1, 3, 2, 2), 0.5, dtype=torch.bfloat16)
    found = perturb(clean, lambda x: x.flatten(1).sum(1), ONE / 4096, 0 * ONE, ONE, 4)
    assert torch.equal(found, torch.full((1, 3, 2, 2), 0.5 - 1 / 4096))


def test_the_face_is_sought_where_there_is_one() -> None:
    """The second picture never has a face, the third loses it after one step, and half a step on is still one."""
    start = torch.full((3, 3, 2, 2), 0.5)

    def sketch(pixels: Tensor) -> tuple[Tensor, Tensor]:
        moved = (pixels - 0.5).flatten(1).mean(1)
        return moved, torch.stack([moved[0] < 9, moved[1] > 9, moved[2] <= 0.02])

    loss = towards_face(sketch)
    torch.testing.assert_close(loss(start), torch.tensor([0.0, NO_FACE, 0.0]))
    found = perturb(start, loss, ONE / 8, 0 * ONE, ONE, 3)
    assert [float(photo.mean()) - 0.5 for photo in found] == [3 / 32, 0, 1 / 64]


def test_without_any_face_nothing_is_tried_twice() -> None:
    calls = []

    def sketch(pixels: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return torch.zeros(len(pixels)), torch.zeros(len(pixels), dtype=torch.bool)

    start = torch.full((2, 3, 2, 2), 0.5)
    assert torch.equal(perturb(start, towards_face(sketch), ONE / 8, 0 * ONE, ONE, 30), start)
    assert len(calls) == 1
