"""ArcFace networks at true size with random weights: iresnet50 and iresnet100 as insightface's packs have them.

The graph is that of deepinsight/insightface, recognition/arcface_torch/backbones/iresnet.py, exported with batch norms
folded into the convolutions where one follows the other: input `input.1`, 512 numbers, not normalised.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS = {"r50": (3, 4, 14, 3), "r100": (3, 13, 30, 3)}
_WIDTHS = (64, 128, 256, 512)
_EMBEDDING, _SIDE = 512, 112


@dataclass
class _Graph:
    """Nodes and weights; a method appends an operator and returns the name of its result."""

    random: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, **settings: Any) -> str:
        result = f"{len(self.nodes) + 1}"
        self.nodes.append(
            helper.make_node(operator, inputs, [result], name=f"{operator}_{len(self.nodes)}", **settings)
        )
        return result

    def weight(self, values: npt.NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, x: str, inner: int, outer: int, size: int, stride: int, scale: float = 1.0) -> str:
        kernel = self.random.standard_normal((outer, inner, size, size)) * scale * (2 / (inner * size**2)) ** 0.5
        weights = (self.weight(kernel), self.weight(np.zeros(outer)))
        return self.add("Conv", x, *weights, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def prelu(self, x: str, width: int) -> str:
        return self.add("PRelu", x, self.weight(np.full((width, 1, 1), 0.25)))

    def norm(self, x: str, width: int) -> str:
        parts = (np.ones(width), np.zeros(width), np.zeros(width), np.ones(width))
        return self.add("BatchNormalization", x, *(self.weight(part) for part in parts), epsilon=1e-5)

    def block(self, x: str, inner: int, outer: int, stride: int) -> str:
        """Norm, convolution, PReLU, convolution, beside a shortcut; small, so that activations stay in range."""
        y = self.conv(self.norm(x, inner), inner, outer, 3, 1)
        y = self.conv(self.prelu(y, outer), outer, outer, 3, stride, scale=0.2)
        return self.add("Add", y, self.conv(x, inner, outer, 1, stride) if stride > 1 else x)


def write_arcface(path: Path, size: str) -> Path:
    """Write a network.

    Args:
        path: the file.
        size: a key of `BLOCKS`.
    """
    graph = _Graph(np.random.default_rng(0))
    x = graph.prelu(graph.conv("input.1", 3, _WIDTHS[0], 3, 1), _WIDTHS[0])
    inner = _WIDTHS[0]
    for count, width in zip(BLOCKS[size], _WIDTHS, strict=True):
        for number in range(count):
            x = graph.block(x, inner, width, 2 if number == 0 else 1)
            inner = width
    x = graph.add("Flatten", graph.norm(x, inner))
    pixels = inner * (_SIDE // 16) ** 2
    matrix = graph.weight(graph.random.standard_normal((_EMBEDDING, pixels)) * pixels**-0.5)
    output = graph.norm(graph.add("Gemm", x, matrix, graph.weight(np.zeros(_EMBEDDING)), transB=1), _EMBEDDING)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["None", *shape])
        for name, shape in (("input.1", (3, _SIDE, _SIDE)), (output, (_EMBEDDING,)))
    ]
    made = helper.make_graph(graph.nodes, "torch-jit-export", ends[:1], ends[1:], graph.weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path
