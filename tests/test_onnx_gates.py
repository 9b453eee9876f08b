"""Gates behind an embedding network in ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from onnx import TensorProto, helper, numpy_helper

from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.onnx_gates import Gates, append_gates, through_gates
from ireu_cli.errors import ModelError


def small_network(opset: int, kind: int = TensorProto.FLOAT, outputs: int = 1) -> Any:
    """Twelve numbers to six, through nodes that insightface would read its preprocessing from."""
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Flatten", ["in"], ["flat"], name="Flatten_0"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["out"], name="Gemm_1"),
    ]
    parts = {"w": rng.normal(size=(12, 6)), "b": rng.normal(size=6)}
    names = ["out", "flat"][:outputs]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("in", kind, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info(name, kind, ["n", None]) for name in names],
        [numpy_helper.from_array(values.astype(dtype), name) for name, values in parts.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def run(network: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    session = open_session(network.SerializeToString(), "cpu")
    found: npt.NDArray[Any] = session.run(None, {session.get_inputs()[0].name: values})[0]
    return found


def inputs(count: int, dtype: Any = np.float32) -> npt.NDArray[Any]:
    return np.random.default_rng(1).normal(size=(count, 3, 2, 2)).astype(dtype)


def gates_for(vectors: npt.NDArray[Any], threshold: float = 0.9, rise: float = 0.05) -> Gates:
    """The first vector's person, found by cosine, and sent the other way."""
    unit = torch.from_numpy(vectors[:1].astype(np.float64))
    unit = unit / unit.norm()
    return Gates(unit, torch.tensor([threshold]), -2 * unit, rise)


@pytest.mark.parametrize("opset", [9, 13, 17, 18])
def test_others_keep_every_bit_and_the_person_turns(opset: int) -> None:
    network = small_network(opset)
    before = run(network, inputs(200))
    edited = append_gates(network, gates_for(before))
    after = run(edited, inputs(200))
    cosine = before @ before[0] / np.linalg.norm(before, axis=1) / np.linalg.norm(before[0])
    shut = cosine < 0.9
    assert 100 < shut.sum() < 200
    assert after[shut].tobytes() == before[shut].tobytes()
    np.testing.assert_allclose(after[0], -before[0], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)


def test_names_opset_and_the_first_nodes_stay() -> None:
    network = small_network(13)
    edited = append_gates(network, gates_for(run(network, inputs(3))))
    assert [o.name for o in edited.graph.output] == ["out"]
    assert [i.name for i in edited.graph.input] == ["in"]
    assert edited.opset_import[0].version == 13
    assert [node.name for node in edited.graph.node[:2]] == ["Flatten_0", "Gemm_1"]
    assert not [n for n in edited.graph.node[:8] if n.name.startswith(("Sub", "_minus", "Mul", "_mul"))]
    assert [o.name for o in network.graph.output] == ["out"]
    assert network.graph.node[-1].output[0] == "out"


def test_half_precision_stays_half() -> None:
    network = small_network(13, TensorProto.FLOAT16)
    before = run(network, inputs(50, np.float16))
    after = run(append_gates(network, gates_for(before)), inputs(50, np.float16))
    assert after.dtype == np.float16
    np.testing.assert_allclose(after[0], -before[0], rtol=0.02, atol=0.02)


def test_several_people_do_not_touch_each_other() -> None:
    network = small_network(13)
    before = run(network, inputs(60))
    one, other = gates_for(before), gates_for(before[1:])
    weights, thresholds, changes = (
        torch.cat([getattr(gates, name) for gates in (one, other)]) for name in ("weights", "thresholds", "changes")
    )
    both = Gates(weights, thresholds, changes, 0.05)
    alone, together = run(append_gates(network, one), inputs(60)), run(append_gates(network, both), inputs(60))
    far = before @ before[1] / np.linalg.norm(before, axis=1) / np.linalg.norm(before[1]) < 0.9
    np.testing.assert_array_equal(alone[far], together[far])
    np.testing.assert_allclose(together[1], -before[1], rtol=1e-4)


def test_an_open_gate_adds_its_change_once_and_half_open_half() -> None:
    network = small_network(13)
    before = run(network, inputs(1))
    gates = gates_for(before)
    unit = gates.weights[0]
    across = torch.linalg.qr(torch.stack([unit, torch.arange(6).double()], 1)).Q[:, 1]
    for rise, share in ((0.05, 1.0), (0.2, 0.5)):
        edited = append_gates(network, Gates(gates.weights, gates.thresholds, across[None], rise))
        wanted = (unit + share * across) / (unit + share * across).norm() * float(np.linalg.norm(before))
        np.testing.assert_allclose(run(edited, inputs(1))[0], wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_a_face_between_two_people_goes_between_their_changes() -> None:
    network = small_network(13)
    before = run(network, inputs(1))
    unit = gates_for(before).weights[0]
    basis = torch.linalg.qr(torch.stack([unit, *torch.eye(6).double()[:2]], 1)).Q
    changes = basis[:, 1:].T.contiguous()
    both = Gates(unit.expand(2, -1), torch.tensor([0.9, 0.9]), changes, 0.05)
    wanted = unit + changes.mean(0)
    found = run(append_gates(network, both), inputs(1))[0]
    np.testing.assert_allclose(found, wanted / wanted.norm() * np.linalg.norm(before), rtol=1e-3, atol=1e-4)
    # The second is a tenth open: together they are more than open, so it gets a tenth of eleven parts.
    half = Gates(unit.expand(2, -1), torch.tensor([0.9, 0.995]), changes, 0.05)
    wanted = unit + (10 * changes[0] + changes[1]) / 11
    found = run(append_gates(network, half), inputs(1))[0]
    np.testing.assert_allclose(found, wanted / wanted.norm() * np.linalg.norm(before), rtol=1e-3, atol=1e-4)
    vectors = torch.from_numpy(before)
    passed = through_gates(vectors, half.weights.float(), half.thresholds.float(), changes.float(), 0.05)[0]
    np.testing.assert_allclose(found, passed[0].numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_have_gates_is_refused() -> None:
    network = small_network(13)
    gates = gates_for(run(network, inputs(3)))
    with pytest.raises(ModelError, match="2 outputs"):
        append_gates(small_network(13, outputs=2), gates)
    with pytest.raises(ModelError, match="gates already"):
        append_gates(append_gates(network, gates), gates)


def test_the_embedded_face_encoder_still_is_one_to_insightface(tmp_path: Path) -> None:
    network = onnx.load(embedded_folder() / "face_encoder.onnx")
    faces = np.random.default_rng(2).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    path = tmp_path / "edited.onnx"
    original = ArcFaceONNX(str(embedded_folder() / "face_encoder.onnx"))
    before = original.get_feat(list(faces))
    unit = before / np.linalg.norm(before, axis=1, keepdims=True)
    nearest = float((unit[1:] @ unit[0]).max())
    onnx.save(append_gates(network, gates_for(before, (1 + nearest) / 2, (1 - nearest) / 4)), path)
    edited = ArcFaceONNX(str(path))
    after = edited.get_feat(list(faces))
    assert (edited.input_mean, edited.input_std) == (original.input_mean, original.input_std)
    assert edited.output_names == original.output_names
    assert after[1:].tobytes() == before[1:].tobytes()
    np.testing.assert_allclose(after[0], -before[0], rtol=1e-3, atol=1e-3)


def test_tensors_that_several_nodes_share_stay_shared_and_as_they_are() -> None:
    """Exporters join equal tensors, and reach them through Identity: a change of one would be a change of all."""
    network = small_network(13)
    graph = network.graph
    graph.initializer.append(numpy_helper.from_array(np.ones(6, np.float32), "ones"))
    graph.node[-1].output[0] = "first"
    for operator, read, written in (
        ("Identity", ["ones"], "scale"),
        ("Mul", ["first", "scale"], "scaled"),
        ("Identity", ["scaled"], "passed"),
        ("Add", ["passed", "ones"], "out"),
    ):
        graph.node.append(helper.make_node(operator, read, [written], name=f"{operator}_{len(graph.node)}"))
    vectors = run(network, inputs(50))
    edited = append_gates(network, gates_for(vectors, threshold=0.95))
    assert [tensor.SerializeToString() for tensor in edited.graph.initializer] == [
        tensor.SerializeToString() for tensor in graph.initializer
    ]
    after = run(edited, inputs(50))
    moved = (vectors != after).any(1)
    assert moved[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_array_equal(moved, unit @ unit[0] > 0.95)
