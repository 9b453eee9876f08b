"""A recogniser's ONNX graph run by torch, so that gradients reach its input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

Op = Callable[..., Any]


class Graph(nn.Module):
    """The operations that EdgeFace and MobileFaceNet are made of, one after the other.

    Others raise KeyError when the graph is read. Weights are buffers: they take no part in training.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        graph = onnx.load(str(file)).graph
        self.entry, self.exit = graph.input[0].name, graph.output[0].name
        self.values = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
        self.steps = []
        for node in graph.node:
            held = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self.values[node.output[0]] = _tensor(held["value"])
            else:
                self.steps.append((OPERATIONS[node.op_type], list(node.input), list(node.output), held))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """-> the graph's only output."""
        known: dict[str, Any] = self.values | {self.entry: pixels, "": None}
        for run, inputs, outputs, held in self.steps:
            found = run(*(known[name] for name in inputs), **held)
            for name, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=False):
                known[name] = value
        answer: torch.Tensor = known[self.exit]
        return answer


def _tensor(held: onnx.TensorProto) -> torch.Tensor:
    return torch.from_numpy(numpy_helper.to_array(held).copy())


def _conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **held: Any) -> torch.Tensor:
    pads, strides = held.get("pads", [0, 0, 0, 0]), held.get("strides", [1, 1])
    x = functional.pad(x, (pads[1], pads[3], pads[0], pads[2])) if any(pads) else x
    return functional.conv2d(x, weight, bias, strides, 0, held.get("dilations", [1, 1]), held.get("group", 1))


def _norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, axis: int = -1, epsilon: float = 1e-5, **_: Any
) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def _slice(x: torch.Tensor, start: Any, end: Any, axes: Any = None, steps: Any = None) -> torch.Tensor:
    places = range(len(start)) if axes is None else axes.tolist()
    strides = [1] * len(start) if steps is None else steps.tolist()
    index = [slice(None)] * x.ndim
    for axis, a, b, stride in zip(places, start.tolist(), end.tolist(), strides, strict=True):
        index[axis] = slice(a, min(b, x.shape[axis]), stride)
    return x[tuple(index)]


def _unsqueeze(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return x.squeeze(tuple(axes.tolist()))


def _reshape(x: torch.Tensor, shape: torch.Tensor, **_: Any) -> torch.Tensor:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _gather(x: torch.Tensor, index: torch.Tensor, axis: int = 0) -> torch.Tensor:
    return x.select(axis, int(index)) if index.ndim == 0 else x.index_select(axis, index)


def _divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def _norm_l2(x: torch.Tensor, axes: Any = None, keepdims: int = 1, **_: Any) -> torch.Tensor:
    return x.norm(dim=tuple(int(a) for a in axes), keepdim=bool(keepdims))


def _split(x: torch.Tensor, sizes: Any = None, axis: int = 0, num_outputs: int = 1, **held: Any) -> Any:
    sizes = held.get("split", sizes)
    parts = [int(n) for n in sizes] if sizes is not None else -(-x.shape[axis] // num_outputs)
    return torch.split(x, parts, axis)


def _expand(x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x * torch.ones(shape.tolist(), dtype=x.dtype)


def _cast(x: torch.Tensor, to: int, **_: Any) -> torch.Tensor:
    return x.to(torch.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(to).type(0).reshape(1)).dtype)


def _filled(shape: torch.Tensor, value: onnx.TensorProto) -> torch.Tensor:
    return torch.ones(shape.tolist(), dtype=_tensor(value).dtype) * _tensor(value)


def _matrix(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, transB: int = 0, **_: Any) -> torch.Tensor:  # noqa: N803 (ONNX)
    return x @ (y.T if transB else y) + bias


OPERATIONS: dict[str, Op] = {
    "Add": torch.add,
    "Cast": _cast,
    "Clip": lambda x, low=None, high=None: x if low is None and high is None else x.clamp(low, high),
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "Cos": torch.cos,
    "CumSum": lambda x, axis, **_: x.cumsum(int(axis)),
    "Div": _divide,
    "Erf": torch.erf,
    "Expand": _expand,
    "Flatten": lambda x, axis=1: x.flatten(axis),
    "Gather": _gather,
    "Gemm": _matrix,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "LayerNormalization": _norm,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Not": torch.logical_not,
    "PRelu": lambda x, slope: functional.prelu(x, slope.flatten()),
    "ReduceL2": _norm_l2,
    "Reshape": _reshape,
    "Shape": lambda x: torch.tensor(x.shape),
    "Sin": torch.sin,
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: x.softmax(axis),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Transpose": lambda x, perm: x.permute(*perm),
    "Unsqueeze": _unsqueeze,
}
