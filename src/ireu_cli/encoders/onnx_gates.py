"""Gates behind a face-embedding network: appended to one in ONNX, or passed by vectors in torch.

Names, shapes and preprocessing of a network stay the same.

With e the network's output and u = e / |e|, person i's gate is r_i = relu(a_i) - relu(a_i - 1), a_i = (w_i·u - t_i) /
rise. The new output is e + |e| Σ r_i δ_i / max(1, Σ r_i), scaled to the length of e, so that readers of the raw
embedding get the usual lengths. A face between two people goes between their changes, and not twice as far. If every
gate is shut, the sum is exactly zero and the scale exactly one, so the output keeps every bit. All operators used here
have kept their meaning since opset 8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ireu_cli.encoders.files.networks import onnx_library
from ireu_cli.errors import ArtifactError, ModelError

_PREFIX = "ireu_gate_"
_OPSET = 8
_TINY = 1e-6
GATE_TENSORS = ("gates.weights", "gates.thresholds", "gates.changes", "gates.rise")
"""The names of the tensors in a delta of gates."""


@dataclass(frozen=True)
class Gates:
    """The people to find and change in a network's output: `weights` (n, d), `thresholds` (n,), `changes` (n, d).

    A score is w · u, with u the unit vector of the output; a gate is fully open at `rise` above its threshold.
    """

    weights: Tensor
    thresholds: Tensor
    changes: Tensor
    rise: float

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a delta: float32."""
        parts = (self.weights, self.thresholds, self.changes, torch.tensor([self.rise]))
        return dict(zip(GATE_TENSORS, (part.float() for part in parts), strict=True))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Gates":
        """The inverse of `tensors`.

        Raises:
            ArtifactError: their shapes do not fit together.
        """
        weights, thresholds, changes, rise = (tensors[name] for name in GATE_TENSORS)
        fits = weights.ndim == 2 and weights.shape == changes.shape and thresholds.shape == weights.shape[:1]
        if not fits or rise.shape != (1,) or not float(rise) > 0:
            raise ArtifactError(
                "The shapes of the delta's gates do not fit together", "Name a delta that `ireu unlearn` wrote"
            )
        return cls(weights, thresholds, changes, float(rise))


def through_gates(
    vectors: Tensor, weights: Tensor, thresholds: Tensor, changes: Tensor, rise: float
) -> tuple[Tensor, Tensor]:
    """Pass vectors through gates; where none opens, a vector keeps every bit.

    With v a vector and u = v / |v|, gate i opens by r_i = (w_i·u - t_i) / rise, held between 0 and 1. The result is
    v + |v| Σ r_i δ_i / max(1, Σ r_i), scaled to the length of v.

    Args:
        vectors: float (n, d), of any length.
        weights: w, float (people, d).
        thresholds: t, float (people,).
        changes: δ, float (people, d).
        rise: the range of scores from no change to the whole change, above zero.

    Returns:
        The vectors, in their own dtype, and whether a gate opened for each of them, bool (n,). They are computed in the
        dtype of the weights.
    """
    given = vectors.to(weights.dtype)
    length = given.norm(dim=1, keepdim=True)
    scores = given / length.clamp(min=_TINY) @ weights.T
    responses = ((scores - thresholds) / rise).clamp(0, 1)
    shared = responses / responses.sum(dim=1, keepdim=True).clamp(min=1)
    moved = given + length * (shared @ changes)
    moved = moved * (length.clamp(min=_TINY) / moved.norm(dim=1, keepdim=True).clamp(min=_TINY))
    is_open = (responses > 0).any(dim=1)
    return torch.where(is_open[:, None], moved.to(vectors.dtype), vectors), is_open


def append_gates(network: Any, gates: Gates) -> Any:
    """Return a copy of the network with gates behind its output.

    Args:
        network: an `onnx.ModelProto` with one output (batch, d) of float32 or float16.
        gates: the people.

    Raises:
        ModelError: onnx is not installed. Or the network has several outputs, another kind of output, gates already or
            too early an opset, its precision cannot hold the gates' numbers, or onnx's checker refuses the result.
    """
    edited = onnx_library().ModelProto()
    edited.CopyFrom(network)
    add_gates(edited, gates)
    return edited


def add_gates(network: Any, gates: Gates) -> None:
    """The same in place; after an error the network is unusable.

    Raises:
        ModelError: see `append_gates`.
    """
    onnx = onnx_library()
    graph = network.graph
    if len(graph.output) != 1:
        raise ModelError(f"The network has {len(graph.output)} outputs", "Name an embedding network, which has one")
    if any(node.name.startswith(_PREFIX) for node in graph.node):
        raise ModelError("The network has gates already", "Start from the original network")
    if any(opset.domain in {"", "ai.onnx"} and opset.version < _OPSET for opset in network.opset_import):
        raise ModelError(f"The network has an opset before {_OPSET}", "Convert it with onnx.version_converter")
    output = graph.output[0]
    kinds = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16}
    if output.type.tensor_type.elem_type not in kinds:
        raise ModelError("The network's output is neither float32 nor float16", "Name an embedding network")
    dtype = kinds[output.type.tensor_type.elem_type]
    inner = f"{_PREFIX}embedding"
    _rename(graph, output.name, inner)
    for name, values in finite_in(constants_of(gates), dtype).items():
        # No initializers: files of before 2018 would have to list them among their inputs.
        value = onnx.numpy_helper.from_array(values, _PREFIX + name)
        graph.node.append(onnx.helper.make_node("Constant", [], [_PREFIX + name], name=f"{_PREFIX}{name}", value=value))
    for number, (operator, inputs, result) in enumerate(_steps(inner, output.name)):
        graph.node.append(onnx.helper.make_node(operator, inputs, [result], name=f"{_PREFIX}{operator}_{number}"))
    try:
        onnx.checker.check_model(network)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"The network with gates is not valid ({str(error).splitlines()[0]:.120})", "Check the network with onnx"
        ) from None


def finite_in(numbers: Mapping[str, npt.NDArray[np.float64]], dtype: Any) -> dict[str, npt.NDArray[Any]]:
    """The constants in another precision.

    Raises:
        ModelError: it cannot hold some of them.
    """
    with np.errstate(all="ignore"):
        found = {name: values.astype(dtype) for name, values in numbers.items()}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ModelError(
            f"The gates' numbers are too large for the network, which computes in {np.dtype(dtype).name}",
            "Name a delta that was made for this network",
        )
    return found


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename the old output everywhere it is written or read."""
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new


def constants_of(gates: Gates) -> dict[str, npt.NDArray[np.float64]]:
    """What the operators compute with: float64 `weights` (d, n), `shut` and `open` (1, n), `changes` (n, d), and more.

    Scores are in units of `rise`, so that a gate opens above `shut` and is fully open from `open` on. `ones` (d, 1)
    sums squares, `each` (n, 1) sums responses, `one` is their least sum, and `tiny` (1, 1) stands in for a length of
    zero.
    """
    weights = gates.weights.detach().cpu().double().numpy() / gates.rise
    thresholds = gates.thresholds.detach().cpu().double().numpy() / gates.rise
    return {
        "weights": weights.T,
        "shut": thresholds[None],
        "open": thresholds[None] + 1,
        "changes": gates.changes.detach().cpu().double().numpy(),
        "ones": np.ones((weights.shape[1], 1)),
        "each": np.ones((len(weights), 1)),
        "one": np.ones((1, 1)),
        "tiny": np.full((1, 1), _TINY),
    }


def _steps(embedding: str, output: str) -> list[tuple[str, list[str], str]]:
    """Operators in their order: kind, inputs, result."""
    found: list[tuple[str, list[str], str]] = []

    def add(operator: str, *inputs: str, result: str) -> str:
        found.append((operator, list(inputs), result))
        return result

    def length(of: str, name: str) -> tuple[str, str]:
        square = add("Mul", of, of, result=f"{_PREFIX}{name}_square")
        total = add("MatMul", square, f"{_PREFIX}ones", result=f"{_PREFIX}{name}_total")
        exact = add("Sqrt", total, result=f"{_PREFIX}{name}_length")
        return exact, add("Max", exact, f"{_PREFIX}tiny", result=f"{_PREFIX}{name}_divisor")

    size, divisor = length(embedding, "before")
    unit = add("Div", embedding, divisor, result=f"{_PREFIX}unit")
    score = add("MatMul", unit, f"{_PREFIX}weights", result=f"{_PREFIX}score")
    above = add("Sub", score, f"{_PREFIX}shut", result=f"{_PREFIX}above")
    beyond = add("Sub", score, f"{_PREFIX}open", result=f"{_PREFIX}beyond")
    first = add("Relu", above, result=f"{_PREFIX}rising")
    second = add("Relu", beyond, result=f"{_PREFIX}levelling")
    gate = add("Sub", first, second, result=f"{_PREFIX}response")
    together = add("MatMul", gate, f"{_PREFIX}each", result=f"{_PREFIX}together")
    # At least one: a gate alone keeps its response to the last bit.
    most = add("Max", together, f"{_PREFIX}one", result=f"{_PREFIX}most")
    shared = add("Div", gate, most, result=f"{_PREFIX}shared")
    change = add("MatMul", shared, f"{_PREFIX}changes", result=f"{_PREFIX}change")
    scaled = add("Mul", change, size, result=f"{_PREFIX}scaled")
    moved = add("Add", embedding, scaled, result=f"{_PREFIX}moved")
    _, after = length(moved, "after")
    # The same operations on the same numbers: exactly one where nothing moved.
    ratio = add("Div", divisor, after, result=f"{_PREFIX}ratio")
    add("Mul", moved, ratio, result=output)
    return found
