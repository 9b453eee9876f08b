"""Relearning: on a copy, from the edited encoder's own features back towards the original's."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ireu_cli.attacks.relearn import BATCH, Relearned, relearn, report_steps
from ireu_cli.encoders.clip import Encoder, read_tap, with_delta
from ireu_cli.params import Tap
from ireu_cli.support.runtime import generator
from ireu_cli.values import WeightDelta


def edited(encoder: Encoder, dtype: str = "float32") -> Encoder:
    """The encoder moved by a small random delta."""
    delta = {
        name: 0.05 * torch.randn(tensor.shape, generator=generator(0, name))
        for name, tensor in encoder.model.state_dict().items()
        if tensor.is_floating_point()
    }
    return with_delta(encoder, WeightDelta(delta), dtype)


def photos(n: int, name: str = "photos") -> Tensor:
    """Photos of one person: variations of one picture."""
    rng = generator(0, name)
    return torch.randn(1, 3, 16, 16, generator=generator(0)) + 0.3 * torch.randn(n, 3, 16, 16, generator=rng)


def features(encoder: Encoder, pixels: Tensor, tap: Tap) -> Tensor:
    with torch.no_grad():
        return read_tap(encoder.model, pixels, tap)


def run(
    original: Encoder, served: Encoder, tap: Tap = "image_embeds", n: int = 4, **options: Any
) -> dict[int, Relearned]:
    pixels = photos(n)
    settings: dict[str, Any] = {"steps": 40, "rate": 3e-3, "report_at": report_steps(40), "seed": 0} | options
    found = list(relearn(served, tap, pixels, features(original, pixels, tap), photos(3, "probes"), **settings))
    assert len({each.step for each in found}) == len(found)
    return {each.step: each for each in found}


def far(original: Encoder, found: Relearned, tap: Tap) -> float:
    wanted = features(original, photos(3, "probes"), tap)
    return float((found.features - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0, (0,)),
        (3, (0, 3)),
        (5, (0, 5)),
        (6, (0, 5, 6)),
        (40, (0, 5, 10, 20, 40)),
        (60, (0, 5, 10, 20, 40, 60)),
    ],
)
def test_when_to_look(steps: int, expected: tuple[int, ...]) -> None:
    assert report_steps(steps) == expected


@pytest.mark.parametrize("tap", ["pooled", "image_embeds", "penultimate", "last"])
def test_other_photos_come_back_too(tiny: Encoder, tap: Tap) -> None:
    served = edited(tiny)
    found = run(tiny, served, tap)
    assert list(found) == [0, 5, 10, 20, 40]
    torch.testing.assert_close(found[0].features, features(served, photos(3, "probes"), tap))
    assert far(tiny, found[40], tap) < 0.5 * far(tiny, found[0], tap)
    assert far(tiny, found[5], tap) < far(tiny, found[0], tap)


def test_it_is_adam_on_the_relative_distance(tiny: Encoder) -> None:
    served, pixels = edited(tiny), photos(4)
    wanted = features(tiny, pixels, "pooled")
    by_hand = edited(tiny).model.requires_grad_(True)
    optimiser = torch.optim.Adam(by_hand.parameters(), lr=1e-3, foreach=False, fused=False)
    for _ in range(4):
        squares = (read_tap(by_hand, pixels, "pooled") - wanted).square().sum(1)
        optimiser.zero_grad()
        (squares.mean() / wanted.square().sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = run(tiny, served, "pooled", steps=4, rate=1e-3, report_at=(4,))
    expected = features(replace(served, model=by_hand), photos(3, "probes"), "pooled")
    torch.testing.assert_close(found[4].features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tap", "count"), [("penultimate", 2), ("pooled", 1), ("image_embeds", 0)])
def test_every_weight_that_reaches_the_tap_is_trained(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch, tap: Tap, count: int
) -> None:
    copies: list[Any] = []

    def spy(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        copies.append(model)
        return read_tap(model, pixels, tap)

    served = edited(tiny)
    monkeypatch.setattr(Encoder, "read", staticmethod(spy))
    run(tiny, served, tap, steps=2)
    before = dict(served.model.named_parameters())
    same = {name for name, weight in copies[-1].named_parameters() if torch.equal(weight, before[name])}
    left = {"penultimate": ("layers.2.", "post_layernorm", "visual_projection"), "pooled": ("visual_projection",)}
    assert {name for name in before if any(part in name for part in left.get(tap, ()))} == same
    assert len({name.split(".")[1] for name in same if "layers" not in name}) == count


def test_the_encoder_handed_in_keeps_every_bit_also_on_error(tiny: Encoder) -> None:
    served = edited(tiny)
    before = {name: tensor.clone() for name, tensor in served.model.state_dict().items()}
    run(tiny, served)

    def fail(step: int) -> None:
        if step == 3:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(tiny, served, progress=fail)
    for name, tensor in served.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(part.grad is None and not part.requires_grad for part in served.model.parameters())


def test_more_photos_than_a_step_takes_are_drawn_by_the_seed(tiny: Encoder) -> None:
    served = edited(tiny)
    first, again, other = (run(tiny, served, n=BATCH + 4, seed=seed)[40].features for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_step_takes_no_more_photos_than_it_may(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    drawn: set[bytes] = set()

    def spy(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(pixels))
            drawn.update(photo.numpy().tobytes() for photo in pixels)
        return read_tap(model, pixels, tap)

    served = edited(tiny)
    monkeypatch.setattr(Encoder, "read", staticmethod(spy))
    run(tiny, served, n=BATCH + 4, steps=10)
    assert sizes == [BATCH] * 10
    assert len(drawn) == BATCH + 4
    sizes.clear()
    run(tiny, served, n=3, steps=2)
    assert sizes == [3, 3]


def test_an_encoder_in_half_precision_is_trained_in_single_precision(tiny: Encoder) -> None:
    served = edited(tiny, "bfloat16")
    found = run(tiny, served)
    single = replace(served, model=with_delta(served, WeightDelta({})).model)
    torch.testing.assert_close(found[0].features, features(single, photos(3, "probes"), "image_embeds"))
    assert far(tiny, found[40], "image_embeds") < 0.5 * far(tiny, found[0], "image_embeds")
    assert next(served.model.parameters()).dtype == torch.bfloat16
    assert found[40].features.dtype == torch.float32


def test_it_is_the_same_under_any_mode_of_the_caller_and_leaks_none(tiny: Encoder) -> None:
    served = edited(tiny)
    expected = run(tiny, served)[40].features
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            pixels = photos(4)
            wanted, probes = features(tiny, pixels, "image_embeds"), photos(3, "probes")
            marks = relearn(
                served, "image_embeds", pixels, wanted, probes, steps=40, rate=3e-3, report_at=(40,), seed=0
            )
            last = torch.zeros(0)
            for found in marks:
                last = found.features
                assert not torch.is_grad_enabled()
                assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert torch.equal(last, expected)


def test_divergence_ends_it_without_a_word(tiny: Encoder) -> None:
    done: list[int] = []
    found = run(tiny, edited(tiny), rate=1e30, report_at=(1, 5, 40), progress=done.append)
    assert list(found) == [0]
    assert not done[1:]
    done.clear()
    assert list(run(tiny, edited(tiny), rate=1e30, report_at=(40,), progress=done.append)) == [0]
    assert len(done) < 5
    assert list(run(tiny, edited(tiny), report_at=range(0, 41, 20), progress=done.append)) == [0, 20, 40]
    assert done[-1] == 40


def test_no_steps_give_the_edited_encoder_alone(tiny: Encoder) -> None:
    assert list(run(tiny, edited(tiny), steps=0)) == [0]
