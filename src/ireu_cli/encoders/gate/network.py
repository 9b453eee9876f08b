"""A gate in ONNX: it says of embeddings whether they are of somebody who was removed, and never of whom.

With e an embedding and u = e / |e|, detector i fires if w_i·u > t_i, in units of `rise`, as it does behind an edited
network (`onnx_gates`). The answer joins all detectors. Rows with a value that is not a finite number count as removed:
a gate that cannot tell must not let pass. Each row is scaled by its largest value before it is squared, so that no
number leaves the range of half precision, however long the embedding is.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ireu_cli.encoders.files.networks import load_network, onnx_library
from ireu_cli.encoders.onnx_gates import Gates, constants_of, finite_in
from ireu_cli.layouts.table import layout_named
from ireu_cli.support.bounded import printable

FILE = layout_named("gate").file
"""The name of the file in an export."""
INPUT, OUTPUT = "embedding", "removed"
"""The names of the input, float32 (n, d), and of the output, bool (n,)."""
_OPSET, _IR = 13, 8
_TINY = 1e-4
"""What stands in for a length of zero; half precision holds it with all digits."""
_VERSION = "1"
_KEYS = ("ireu.gate", "ireu.encoder", "ireu.false_alarm_rate", "ireu.input", "ireu.output")
"""The entries of the file's metadata."""


@dataclass(frozen=True)
class GateFacts:
    """What a gate states about itself.

    Attributes:
        encoder: the fingerprint of the encoder whose embeddings it looks at.
        false_alarm_rate: the share of other people's photos that all detectors together may take for somebody removed,
            as it was set.
        width: the number of features of an embedding.
    """

    encoder: str
    false_alarm_rate: str
    width: int


def gate_bytes(gates: Gates, encoder: str, false_alarm_rate: float) -> bytes:
    """Write a gate; the same gates in any order give the same bytes.

    Args:
        gates: the detectors; with none, the gate answers no.
        encoder: the fingerprint of their encoder.
        false_alarm_rate: what all detectors together were granted, from 0 to 1.

    Raises:
        ModelError: onnx is not installed, or float32 cannot hold a number.
    """
    onnx = onnx_library()
    values = finite_in(_numbers(gates), np.float32)
    width = gates.weights.shape[1]
    nodes = [
        onnx.helper.make_node(kind, inputs, [result], name=result, **more) for kind, inputs, result, more in _STEPS
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "gate",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["n", width])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.BOOL, ["n"])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in values.items()],
    )
    opset = onnx.helper.make_opsetid("", _OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="ireu")
    onnx.helper.set_model_props(model, _metadata(encoder, false_alarm_rate, width))
    onnx.checker.check_model(model, full_check=True)
    found: bytes = model.SerializeToString(deterministic=True)
    return found


def read_gate(path: Path) -> GateFacts | None:
    """What a file states, if it is a gate that ireu wrote; None otherwise.

    Raises:
        ModelError: it is no ONNX network.
    """
    network = load_network(path)
    told = {entry.key: entry.value for entry in network.metadata_props}
    inputs, outputs = network.graph.input, network.graph.output
    if told.get(_KEYS[0]) != _VERSION or [entry.name for entry in (*inputs, *outputs)] != [INPUT, OUTPUT]:
        return None
    # Metadata can be put on any network.
    steps = [(node.op_type, list(node.input), list(node.output)) for node in network.graph.node]
    if steps != [(kind, inputs, [result]) for kind, inputs, result, _ in _STEPS]:
        return None
    width = next(iter(inputs[0].type.tensor_type.shape.dim[1:]), None)
    return GateFacts(
        printable(told.get(_KEYS[1], "")), printable(told.get(_KEYS[2], "")), width.dim_value if width else 0
    )


def _metadata(encoder: str, rate: float, width: int) -> Mapping[str, str]:
    words = (
        _VERSION,
        encoder,
        f"{rate:.6g}",
        f"{INPUT}: float32 (n, {width}), the encoder's output for n faces, raw or at length one",
        f"{OUTPUT}: bool (n,), whether the face is of somebody who was removed",
    )
    return dict(zip(_KEYS, words, strict=True))


def _numbers(gates: Gates) -> dict[str, npt.NDArray[np.float64]]:
    """The constants, with the detectors in the order of their digests, which says nothing about who came first."""
    rows = torch.cat([gates.weights, gates.thresholds[:, None]], dim=1).float().cpu().numpy()
    order = sorted(range(len(rows)), key=lambda row: hashlib.sha256(rows[row].tobytes()).digest())
    made = constants_of(Gates(gates.weights[order], gates.thresholds[order], gates.changes[order], gates.rise))
    found = {name: made[name] for name in ("ones", "weights", "shut")} | {"tiny": np.full((1, 1), _TINY)}
    if not order:
        # Runtimes differ in what they make of no columns; a score of zero never exceeds one.
        found |= {"weights": np.zeros((gates.weights.shape[1], 1)), "shut": np.ones((1, 1))}
    return found | {"none": np.zeros((1, 1)), "one": np.ones((1, 1)), "zero": np.zeros(1)}


_STEPS: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
    ("Abs", [INPUT], "size", {}),
    ("ReduceMax", ["size"], "largest", {"axes": [1], "keepdims": 1}),
    ("Max", ["largest", "tiny"], "scale", {}),
    ("Div", [INPUT, "scale"], "scaled", {}),
    ("Mul", ["scaled", "scaled"], "square", {}),
    ("MatMul", ["square", "ones"], "total", {}),
    ("Sqrt", ["total"], "length", {}),
    ("Max", ["length", "tiny"], "divisor", {}),
    ("Div", ["scaled", "divisor"], "unit", {}),
    ("MatMul", ["unit", "weights"], "score", {}),
    ("Sub", ["score", "shut"], "above", {}),
    # What is not a number is not at most zero either.
    ("LessOrEqual", ["above", "none"], "is_shut", {}),
    # No casts: converters to half precision do not always convert where they lead.
    ("Where", ["is_shut", "one", "none"], "as_number", {}),
    ("ReduceMin", ["as_number"], "least", {"axes": [1], "keepdims": 0}),
    ("Greater", ["least", "zero"], "all_shut", {}),
    ("Not", ["all_shut"], OUTPUT, {}),
)
"""The operators in their order: kind, inputs, result, attributes."""
