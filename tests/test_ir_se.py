"""facexlib's `ir_se50`: read, run as facexlib does, edited in its weights or by gates, written back."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from ireu_cli.encoders.families import card_of, load_encoder
from ireu_cli.encoders.ir_se.backbone import IrSeSizes
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ArtifactError, ConfigError, ForeignEncoderError, ModelError
from ireu_cli.layouts.table import layout_named
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams
from ireu_cli.values import WeightDelta
from tests.tiny_ir_se import TINY, as_facexlib, random_state, true_sizes, write_ir_se

TAP = "normed_embedding"
LINEAR = "output_layer.3.weight"


def loaded(path: Path, dtype: Any = "float32") -> Any:
    return load_encoder(EncoderParams(source=str(path), tap=TAP, dtype=dtype), ARCFACE_LANDMARKS, "cpu")


def pixels(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 112, 112, generator=torch.Generator().manual_seed(5))


def one_by_one(state: Any, given: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([as_facexlib(state, row[None]) for row in given])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network; tests must not change it."""
    return write_ir_se(tmp_path_factory.mktemp("ir_se") / "tiny.pth")


@pytest.mark.parametrize(("old", "half"), [(False, False), (True, False), (False, True)])
def test_it_computes_what_facexlib_computes(old: bool, half: bool, tmp_path: Path) -> None:
    path = write_ir_se(tmp_path / "x.pth", old=old, half=half)
    state = {name: each.float() for name, each in torch.load(path).items()}
    assert torch.equal(loaded(path).encode(pixels(), TAP), one_by_one(state, pixels()))


def test_faces_come_in_bgr_from_minus_one_to_one(network: Path) -> None:
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 255, 51
    middle = loaded(network).pixels([picture])[0, :, 40:70, 40:70]
    wanted = torch.tensor([-1.0, -0.6, 1.0])[:, None, None].expand_as(middle)
    torch.testing.assert_close(middle, wanted, atol=1e-6, rtol=0)


def test_inspect_says_what_it_is(network: Path) -> None:
    card = card_of(str(network))
    assert (card.kind, card.layout, card.groups) == ("face-embedding network of facexlib", "facexlib", ())
    assert card.architecture == "14 convolutions, 3x112x112 to 48"
    assert card.fingerprint == loaded(network).fingerprint
    counted = [each.numel() for name, each in random_state(TINY).items() if not name.endswith("num_batches_tracked")]
    assert card.parameters == sum(counted)


def test_the_same_weights_are_one_encoder(network: Path, tmp_path: Path) -> None:
    old = write_ir_se(tmp_path / "old.pth", old=True)
    assert loaded(old).fingerprint == loaded(network).fingerprint
    state = {name: each for name, each in torch.load(old).items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "bare.pth")
    assert loaded(tmp_path / "bare.pth").fingerprint == loaded(network).fingerprint
    state[LINEAR][0, 0] += 1
    torch.save(state, tmp_path / "other.pth")
    assert loaded(tmp_path / "other.pth").fingerprint != loaded(network).fingerprint


@pytest.mark.parametrize("half", [False, True])
def test_an_edit_of_weights_is_what_facexlib_loads(half: bool, tmp_path: Path) -> None:
    source = write_ir_se(tmp_path / "x.pth", half=half)
    encoder = loaded(source)
    change = torch.randn(TINY.width, 32 * 49, generator=torch.Generator().manual_seed(1)) / 50
    edited = encoder.edited(WeightDelta({LINEAR: change}))
    assert edited.fingerprint != encoder.fingerprint
    ((name, data),) = edited.files_in(layout_named("facexlib")).items()
    assert name == "recognition_arcface_ir_se50.pth"
    (tmp_path / "out.pth").write_bytes(data)
    before, after = (torch.load(tmp_path / place, weights_only=True) for place in ("x.pth", "out.pth"))
    assert list(before) == list(after)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [LINEAR]
    assert {name: each.dtype for name, each in before.items()} == {name: each.dtype for name, each in after.items()}
    found = one_by_one({name: each.float() for name, each in after.items()}, pixels())
    torch.testing.assert_close(found, edited.encode(pixels(), TAP), atol=2e-3 if half else 0, rtol=0)
    assert (found - encoder.encode(pixels(), TAP)).abs().max() > 0.01
    assert torch.equal(encoder.encode(pixels(), TAP), loaded(source).encode(pixels(), TAP))


def gated(encoder: Any, given: Tensor) -> Any:
    """With a gate that finds the first of some pictures."""
    own = encoder.encode(given, TAP).clone()
    closest = float((own[1:] @ own[0]).max())
    gates = Gates(own[:1], torch.tensor([(1 + closest) / 2]), -2 * own[:1], (1 - closest) / 4)
    return encoder.edited(WeightDelta(gates.tensors()))


def test_gates_turn_the_person_and_leave_others_every_bit(network: Path) -> None:
    encoder = loaded(network)
    edited = gated(encoder, pixels())
    before, after = encoder.encode(pixels(), TAP), edited.encode(pixels(), TAP)
    assert torch.equal(before[1:], after[1:])
    torch.testing.assert_close(after[0], -before[0])
    assert edited.fingerprint != encoder.fingerprint
    none = Gates(torch.empty(0, 48), torch.empty(0), torch.empty(0, 48), 0.1)
    assert encoder.edited(WeightDelta(none.tensors())).fingerprint == encoder.fingerprint


def test_gates_go_into_onnx_and_not_into_a_pth(network: Path, tmp_path: Path) -> None:
    edited = gated(loaded(network), pixels())
    with pytest.raises(ModelError, match="has no place for gates behind it"):
        edited.files_in(layout_named("facexlib"))
    ((name, data),) = edited.files_in(layout_named("onnx")).items()
    (tmp_path / name).write_bytes(data)
    session = onnxruntime.InferenceSession(data)
    # Behind insightface's habit, RGB.
    found = session.run(None, {"face": pixels()[:, [2, 1, 0]].numpy()})[0]
    np.testing.assert_allclose(found, edited.encode(pixels(), TAP).numpy(), atol=1e-5)
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    again = loaded(tmp_path / name)
    prepared = (one.encode(one.pixels([face]), TAP) for one in (again, edited))
    torch.testing.assert_close(*prepared, atol=1e-5, rtol=0)


def test_gradients_pass_through_open_gates(network: Path) -> None:
    edited = gated(loaded(network), pixels())
    given = pixels()[:1].requires_grad_()
    edited.read(edited.model, given, TAP).sum().backward()
    assert given.grad is not None
    assert bool(given.grad.abs().sum() > 0)


def test_parts_name_weights_and_not_statistics(network: Path) -> None:
    encoder = loaded(network)
    every = encoder.weights_for("all", TAP)
    assert not [name for name in every if "running" in name or "num_batches" in name]
    assert encoder.weights_for("input,output", TAP) == sorted(
        name for name in every if name.startswith(("input_layer.", "output_layer."))
    )
    assert encoder.weights_for("block:-1", TAP) == encoder.weights_for("blocks:4-4", TAP)
    assert {name.split(".")[1] for name in encoder.weights_for("blocks:1-2", TAP)} == {"1", "2"}
    for wrong in ("head", "block:5", "blocks:3-1"):
        with pytest.raises(ConfigError, match=r"unlearn\.layers names"):
            encoder.weights_for(wrong, TAP)


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.pop(name)


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (without("body.1.res_layer.4.bias"), r"body\.1\.res_layer\.4\.bias is missing"),
    "unknown": (lambda state: state.update(other=torch.zeros(1)), "other is missing, unknown"),
    "shape": (lambda state: state.update({LINEAR: torch.zeros(48, 32 * 50)}), "is missing, unknown or of another"),
    "whole numbers": (lambda state: state.update({LINEAR: state[LINEAR].to(torch.int8)}), "in torch.int8"),
    "not finite": (lambda state: state[LINEAR].fill_(float("nan")), "holds values that are not finite numbers"),
    "no unit": (without("body.1.res_layer.1.weight"), "does not hold a whole network"),
    "another side": (lambda state: state.update({LINEAR: torch.zeros(48, 32 * 36)}), "takes faces of 96 px"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_whole_is_refused(wrong: str, tmp_path: Path) -> None:
    change, why = WRONG[wrong]
    state = random_state(TINY)
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=why):
        loaded(tmp_path / "x.pth")


def test_other_deltas_are_refused(network: Path) -> None:
    encoder = loaded(network)
    gates = Gates(torch.ones(1, 5), torch.ones(1), torch.ones(1, 5), 0.1)
    for delta in (gates.tensors(), {"vision_model.x": torch.ones(1)}, {LINEAR: torch.ones(2)}):
        with pytest.raises(ArtifactError, match="Name the encoder"):
            encoder.edited(WeightDelta(delta))


def test_a_file_that_would_have_to_be_unpickled_is_not_opened(tmp_path: Path) -> None:
    torch.save({"model": IrSeSizes}, tmp_path / "x.pth")
    with pytest.raises((ModelError, ForeignEncoderError, ConfigError)):
        loaded(tmp_path / "x.pth")


@pytest.mark.skipif(importlib.util.find_spec("facexlib") is None, reason="needs facexlib")
def test_facexlib_itself_loads_an_export_of_the_true_size(tmp_path: Path) -> None:
    place = Path(next(iter(importlib.util.find_spec("facexlib").submodule_search_locations)))  # type: ignore[union-attr,arg-type]
    # The package imports detectors that this does not need.
    spec: Any = importlib.util.spec_from_file_location("arcface_arch", place / "recognition" / "arcface_arch.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    encoder = loaded(write_ir_se(tmp_path / "x.pth", true_sizes()))
    assert card_of(str(tmp_path / "x.pth")).groups == ("IR50",)
    edited = encoder.edited(WeightDelta({LINEAR: torch.full((512, 512 * 49), 1e-3)}))
    (data,) = edited.files_in(layout_named("facexlib")).values()
    (tmp_path / "out.pth").write_bytes(data)
    model = module.Backbone(50, 0.6, "ir_se").eval()
    model.load_state_dict(torch.load(tmp_path / "out.pth"), strict=True)
    with torch.no_grad():
        assert torch.equal(model(pixels(1)), edited.encode(pixels(1), TAP))
    assert not torch.equal(encoder.encode(pixels(1), TAP), edited.encode(pixels(1), TAP))
