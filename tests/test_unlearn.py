"""Unlearning: the paper's losses on a tiny encoder; the encoder handed in stays; resuming gives the same bits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from ireu_cli.encoders.clip import Encoder, read_tap, with_delta
from ireu_cli.errors import DivergedError, PhotoError
from ireu_cli.params import Tap, UnlearnParams
from ireu_cli.support.runtime import generator
from ireu_cli.unlearning.ireu.published import ForgetSet, RetainSet, TrainState, photo_masks, planned_steps, unlearn
from ireu_cli.values import WeightDelta

MASK = torch.arange(16) < 6


def sets(encoder: Encoder, tap: Tap = "pooled") -> tuple[ForgetSet, RetainSet]:
    rng = generator(0, tap)
    pixels, others = (torch.randn(n, 3, 16, 16, generator=rng) for n in (4, 6))
    nulls = encoder.null_pixels()
    with torch.no_grad():
        features, kept, empty = (read_tap(encoder.model, p, tap) for p in (pixels, others, nulls))
    forget = ForgetSet(pixels, features, torch.randn(features.shape, generator=rng), (0, 0, 1, 1))
    return forget, RetainSet(6, lambda positions: (others[list(positions)], kept[list(positions)]), nulls, empty)


def run(
    encoder: Encoder, params: UnlearnParams, tap: Tap = "pooled", **options: Any
) -> tuple[WeightDelta, dict[str, Any]]:
    forget, retain = sets(encoder, tap)
    mask = MASK if encoder.model.config.projection_dim == 12 and tap != "image_embeds" else torch.arange(12) < 5
    names = [name for name in encoder.model.state_dict() if "projection" not in name or "_proj" in name]
    return unlearn(encoder, tap, names, forget, retain, mask, params, 0, **options)


FAST = UnlearnParams(steps=40, learning_rate=1e-3, alpha=3.0)


@pytest.mark.parametrize("tap", ["pooled", "image_embeds", "penultimate", "last"])
def test_targets_move_towards_the_virtual_identity_and_others_stay(tiny: Encoder, tap: Tap) -> None:
    delta, summary = run(tiny, replace_params(FAST, steps=150), tap)
    forget, retain = sets(tiny, tap)
    edited = with_delta(tiny, delta)
    mask = MASK if tap != "image_embeds" else torch.arange(12) < 5
    with torch.no_grad():
        moved = read_tap(edited.model, forget.pixels, tap) - forget.features
        pixels, kept = retain.batch(range(6))
        leaked = read_tap(edited.model, pixels, tap) - kept
    along = (moved * mask * forget.shifts).flatten(1).sum(1)
    assert bool((along > 0).all())
    assert float(leaked.norm()) < float(moved.norm())
    assert summary["forget_loss_last"] < summary["forget_distance_at_start"]


def replace_params(params: UnlearnParams, **changes: Any) -> UnlearnParams:
    return UnlearnParams.model_validate(params.model_dump() | changes)


def test_one_step_is_adam_on_the_papers_loss(tiny: Encoder) -> None:
    """An independent transcription of L = λ₁ ‖e_u(x₋) − z̃‖ + ‖e_u(x₊) − e(x₊)‖ and of one Adam step."""
    params = UnlearnParams(steps=1, learning_rate=1e-2, null_share=0.0)
    seen: list[torch.Tensor] = []
    forget, retain = sets(tiny)

    def spy(positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.tensor(list(positions)))
        pixels, features = retain.batch(positions)
        return pixels, features + 0.5  # away from zero distance, where the norm has no gradient

    spied = replace(retain, batch=spy)
    name = "vision_model.encoder.layers.1.mlp.fc2.weight"
    delta, summary = unlearn(tiny, "pooled", [name], forget, spied, MASK, params, 0)
    first = int(torch.randperm(4, generator=generator(0, "forget", 0))[0])
    z = forget.features[first]
    virtual = z + 100 * torch.where(MASK, forget.shifts[first], 0)
    weight = tiny.model.state_dict()[name].clone().requires_grad_(True)
    full = {"model." + name: weight}

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return read_tap(self.model, x, "pooled")

    pixels, kept = retain.batch(seen[0].tolist())
    out = torch.func.functional_call(Pooled(), full, (torch.cat([forget.pixels[first : first + 1], pixels]),))
    loss = 0.1 * (out[0] - virtual).square().sum().sqrt() + (out[1] - kept[0] - 0.5).square().sum().sqrt()
    (gradient,) = torch.autograd.grad(loss, weight)
    expected = -1e-2 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(delta.tensors[name], expected, rtol=1e-3, atol=1e-5)
    assert summary["loss_curve"][0][1] == pytest.approx(float((out[0] - virtual).detach().norm()), rel=1e-5)


def test_toward_is_the_opposite_of_away(tiny: Encoder) -> None:
    forget, _ = sets(tiny)
    start = read_tap(tiny.model, forget.pixels, "pooled")
    for direction, sign in (("away", 1), ("toward", -1)):
        delta, _ = run(tiny, replace_params(FAST, direction=direction, steps=100))
        moved = read_tap(with_delta(tiny, delta).model, forget.pixels, "pooled") - start
        assert float((moved * MASK * forget.shifts).sum()) * sign > 0


def test_mask_scopes(tiny: Encoder) -> None:
    forget, _ = sets(tiny)
    by_photo = photo_masks(forget, MASK, replace_params(FAST, mask_scope="photo"))
    by_person = photo_masks(forget, MASK, replace_params(FAST, mask_scope="person"))
    shared = photo_masks(forget, MASK, FAST)
    assert by_photo.sum(1).tolist() == by_person.sum(1).tolist() == shared.sum(1).tolist() == [6] * 4
    assert torch.equal(by_person[0], by_person[1])
    assert not torch.equal(by_person[0], by_person[2])
    assert not torch.equal(by_photo[0], by_photo[1])
    assert torch.equal(shared[0], MASK)
    top = forget.shifts[0].abs().topk(6).indices
    assert bool(by_photo[0][top].all())
    assert photo_masks(forget, MASK, replace_params(FAST, method="global")).all()


def test_the_encoder_handed_in_keeps_every_bit_also_on_error(tiny: Encoder) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    run(tiny, FAST)

    def fail(state: TrainState) -> None:
        if state.step == 5:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(tiny, FAST, on_step=fail)
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


@pytest.mark.parametrize("stop", [1, 17, 39])
def test_resuming_gives_the_same_bits(tiny: Encoder, stop: int) -> None:
    whole, summary = run(tiny, FAST)
    kept: dict[str, torch.Tensor] = {}

    def keep(state: TrainState) -> None:
        if state.step == stop:
            kept.update({name: tensor.detach().clone() for name, tensor in state.tensors().items()})

    run(tiny, FAST, on_step=keep)
    resumed, again = run(tiny, FAST, start=TrainState.from_tensors(stop, kept))
    assert summary == again
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name])


def test_divergence_is_noticed(tiny: Encoder) -> None:
    with pytest.raises(DivergedError, match=r"left its range|not a finite"):
        run(tiny, replace_params(FAST, learning_rate=50.0, steps=400))
    forget, retain = sets(tiny)
    broken = replace(
        retain, batch=lambda positions: (retain.batch(positions)[0], retain.batch(positions)[1] * float("nan"))
    )
    with pytest.raises(DivergedError, match="not a finite number at step 1"):
        unlearn(
            tiny,
            "pooled",
            list(tiny.model.state_dict())[:5],
            forget,
            broken,
            MASK,
            replace_params(FAST, null_share=0.0),
            0,
        )


def test_no_shift_is_an_error(tiny: Encoder) -> None:
    forget, retain = sets(tiny)
    with pytest.raises(PhotoError, match="features of the originals"):
        unlearn(tiny, "pooled", [], replace(forget, shifts=forget.shifts * 0), retain, MASK, FAST, 0)


def test_null_images_are_drawn_at_their_share(tiny: Encoder) -> None:
    forget, retain = sets(tiny)
    drawn: list[int] = []

    def spy(positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.append(len(positions))
        return retain.batch(positions)

    spied = replace(retain, batch=spy)
    names = ["vision_model.post_layernorm.bias"]
    unlearn(tiny, "pooled", names, forget, spied, MASK, replace_params(FAST, steps=200, null_share=0.25), 0)
    assert 120 <= sum(drawn) <= 175
    drawn.clear()
    unlearn(tiny, "pooled", names, forget, spied, MASK, replace_params(FAST, steps=20, null_share=0.0), 0)
    assert sum(drawn) == 20


def test_steps_follow_the_paper() -> None:
    assert planned_steps(UnlearnParams(), 1) == 1000
    assert planned_steps(UnlearnParams(), 5) == 12000
    assert planned_steps(UnlearnParams(steps=7), 5) == 7
