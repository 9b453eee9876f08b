"""Gates through other runtimes: every optimisation of onnxruntime, any batch, half precision, OpenVINO."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.gate.network import gate_bytes
from ireu_cli.encoders.onnx_gates import Gates, append_gates
from tests.test_gate_file import LEVELS, two_people
from tests.test_onnx_gates import gates_for, inputs, run, small_network

PAGE = Path(__file__).parent.parent / "docs" / "onnx.md"
BOUND = 5e-7
"""How far an embedding may move that no gate finds, by its own length, where a runtime keeps not every bit."""


def scores(vectors: npt.NDArray[Any], gates: Gates) -> npt.NDArray[Any]:
    """By how many steps the highest score exceeds its threshold."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: npt.NDArray[Any] = ((unit @ gates.weights.numpy().T - gates.thresholds.numpy()) / gates.rise).max(1)
    return found


def check(original: Any, edited: Any, through: Callable[[Any], npt.NDArray[Any]], gates: Gates, bound: float) -> None:
    """Both networks in one runtime: who is found moves, and everybody else stays within a bound."""
    before, after = through(original).astype(np.float64), through(edited).astype(np.float64)
    above = scores(before, gates)
    moved = np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
    assert (above > 1).sum() > 0
    assert (above < 0).sum() > 20
    assert moved[above > 1].min() > 0.5
    assert moved[above < 0].max() <= bound


@pytest.mark.parametrize("batch", [1, 5, 60])
@pytest.mark.parametrize("level", LEVELS)
def test_others_keep_every_bit_at_every_level_and_in_every_batch(level: str, batch: int) -> None:
    network = small_network(13)
    gates = gates_for(run(network, inputs(1)), threshold=0.6)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)

    def through(one: Any) -> npt.NDArray[Any]:
        session = onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
        rows = inputs(60)
        parts = [rows[i : i + batch] for i in range(0, 60, batch)]
        return np.concatenate([session.run(None, {"in": part})[0] for part in parts])

    check(network, append_gates(network, gates), through, gates, 0)


def test_the_embedded_encoder_keeps_every_bit_at_every_level() -> None:
    network = onnx.load(embedded_folder() / "face_encoder.onnx")
    faces = np.random.default_rng(2).standard_normal((12, 3, 112, 112), np.float32)
    found = {}
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)

        def through(one: Any, options: Any = options) -> npt.NDArray[Any]:
            session = onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
            out: npt.NDArray[Any] = session.run(None, {session.get_inputs()[0].name: faces})[0]
            return out

        before = through(network)
        unit = before / np.linalg.norm(before, axis=1, keepdims=True)
        nearest = float((unit[1:] @ unit[0]).max())
        gates = gates_for(before, (1 + nearest) / 2, (1 - nearest) / 4)
        after = through(append_gates(network, gates))
        found[level] = (before != after).any(1).tolist()
    assert all(rows == [True] + [False] * 11 for rows in found.values()), found


def passing(width: int, kind: int) -> Any:
    """A network that hands its input on."""
    ends = [helper.make_tensor_value_info(name, kind, ["n", width]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"], name="pass")], "p", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("length", [1, 20, 60])
def test_gates_hold_where_every_result_is_a_half(length: float) -> None:
    rows = np.random.default_rng(3).standard_normal((200, 512))
    rows[1:9] = rows[0] + 0.6 * rows[1:9]
    given = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * length).astype(np.float16)
    gates = gates_for(given.astype(np.float64), threshold=0.4)
    network = passing(512, TensorProto.FLOAT16)
    check(
        network, append_gates(network, gates), lambda one: ReferenceEvaluator(one).run(None, {"in": given})[0], gates, 0
    )


@pytest.mark.parametrize("length", [1e-2, 1, 20, 3000])
def test_a_gate_alone_holds_where_every_result_is_a_half(length: float) -> None:
    rows = np.random.default_rng(3).standard_normal((200, 512))
    rows[1:9] = rows[0] + 0.6 * rows[1:9]
    given = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * length).astype(np.float16)
    gates = two_people(given.astype(np.float64), (0.4, 0.4))
    half = onnx.load_from_string(gate_bytes(gates, "a" * 64, 0.1))
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    above = scores(given.astype(np.float64), gates)
    (says,) = ReferenceEvaluator(half).run(None, {"embedding": given})
    assert abs(above).min() > 0.05
    np.testing.assert_array_equal(says, above > 0)
    assert 2 < says.sum() < 50


def test_a_network_that_was_converted_to_half() -> None:
    float16 = pytest.importorskip("onnxconverter_common.float16")
    network = small_network(13)
    gates = gates_for(run(network, inputs(1)), threshold=0.6)

    def through(one: Any) -> npt.NDArray[Any]:
        copy = onnx.ModelProto()
        copy.CopyFrom(one)
        return run(float16.convert_float_to_float16(copy, keep_io_types=True), inputs(60))

    check(network, append_gates(network, gates), through, gates, 0)
    vectors = run(network, inputs(60))
    gate = onnx.load_from_string(gate_bytes(gates, "a" * 64, 0.1))
    half = float16.convert_float_to_float16(gate, keep_io_types=True)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"embedding": vectors})[0], scores(vectors, gates) > 0)


@pytest.mark.parametrize("batch", [1, 60])
@pytest.mark.parametrize("in_half", [False, True])
def test_openvino(tmp_path: Path, batch: int, in_half: bool) -> None:
    openvino = pytest.importorskip("openvino")
    network = small_network(13)
    gates = gates_for(run(network, inputs(1)), threshold=0.6)

    def compiled(one: Any) -> Any:
        onnx.save(one, tmp_path / "one.onnx")
        converted = openvino.convert_model(tmp_path / "one.onnx")
        openvino.save_model(converted, tmp_path / "one.xml", compress_to_fp16=in_half)
        return openvino.Core().compile_model(str(tmp_path / "one.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def through(one: Any, rows: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        model, rows = compiled(one), inputs(60) if rows is None else rows
        return np.concatenate([model(rows[i : i + batch])[0].copy() for i in range(0, len(rows), batch)])

    check(network, append_gates(network, gates), through, gates, BOUND)
    vectors = run(network, inputs(60))
    wanted = scores(vectors, gates) > 0
    vectors[7, 0], vectors[8, 2] = np.nan, np.inf
    wanted[7:9] = True
    gate = onnx.load_from_string(gate_bytes(gates, "a" * 64, 0.1))
    np.testing.assert_array_equal(through(gate, vectors), wanted)


def test_the_script_of_the_page_lists_what_was_added(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    network = onnx.load(embedded_folder() / "face_encoder.onnx")
    onnx.save(network, tmp_path / "original.onnx")
    rows = np.random.default_rng(0).standard_normal((2, 512))
    edited = append_gates(network, gates_for(rows))
    onnx.save(edited, tmp_path / "export.onnx")
    last = compared(script, tmp_path)
    assert last[-1] == "31 nodes added; without them the file is the original"
    kinds = {line.split()[0] for line in last[:-1]}
    assert kinds == {"Constant", "Mul", "MatMul", "Sqrt", "Max", "Div", "Sub", "Relu", "Add"}
    assert sum(line.startswith("Constant") for line in last) == 8
    changed = edited.graph.initializer[-1]
    changed.raw_data = bytes([changed.raw_data[0] ^ 1]) + changed.raw_data[1:]
    onnx.save(edited, tmp_path / "export.onnx")
    assert compared(script, tmp_path)[-1].endswith("DIFFERS from the original")


def compared(script: str, folder: Path) -> list[str]:
    """What the script prints about the two files of a folder."""
    done = subprocess.run(
        [sys.executable, "-c", script, "original.onnx", "export.onnx"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
