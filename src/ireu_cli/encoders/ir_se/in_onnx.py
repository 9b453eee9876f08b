"""The same network in ONNX: for services that can load another file than facexlib's, and so gates behind the output."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ireu_cli.encoders.files.networks import onnx_library
from ireu_cli.encoders.ir_se.backbone import IrSeSizes, UnitSizes

_OPSET, _IR = 13, 8
_EPSILON = 1e-5
"""What torch adds to variances."""


class _Writer:
    """Nodes and weights, in the order in which they are added."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Args: the network's tensors by name, on the CPU."""
        self._onnx, self._state = onnx_library(), state
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}

    def held(self, name: str, values: Any) -> str:
        """Keep a constant, and return its name."""
        self.weights[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def tensor(self, name: str) -> str:
        """Keep a tensor of the network, and return its name."""
        return self.held(name, self._state[name].numpy())

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its result."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def convolved(self, maps: str, name: str, stride: int = 1, margin: int = 0) -> str:
        """A convolution."""
        return self.add("Conv", maps, self.tensor(f"{name}.weight"), strides=[stride] * 2, pads=[margin] * 4)

    def normalised(self, maps: str, name: str) -> str:
        """A batch normalisation with the statistics of the file."""
        parts = [self.tensor(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.add("BatchNormalization", maps, *parts, epsilon=_EPSILON)

    def bent(self, maps: str, name: str) -> str:
        """A PReLU with a slope for each channel."""
        return self.add(
            "PRelu", maps, self.held(f"{name}.weight", self._state[f"{name}.weight"].numpy()[:, None, None])
        )


def network_from(state: Mapping[str, Tensor], sizes: IrSeSizes) -> Any:
    """Write the network as an `onnx.ModelProto`.

    It takes `face`, float32 (n, 3, side, side), RGB from -1 to 1 as insightface's networks do, and gives `embedding`,
    float32 (n, width), at length one.

    Args:
        state: float32 tensors by name, on the CPU.
        sizes: the sizes.

    Raises:
        ModelError: onnx is not installed.
    """
    onnx, write = onnx_library(), _Writer(state)
    # facexlib's readers hand in BGR.
    maps = write.add("Gather", "face", write.held("bgr", np.array([2, 1, 0], np.int64)), axis=1)
    maps = write.bent(
        write.normalised(write.convolved(maps, "input_layer.0", margin=1), "input_layer.1"), "input_layer.2"
    )
    for number, unit in enumerate(sizes.units):
        maps = _unit(write, maps, f"body.{number}", unit)
    flat = write.add("Flatten", write.normalised(maps, "output_layer.0"))
    linear = [write.tensor(f"output_layer.3.{part}") for part in ("weight", "bias")]
    found = write.normalised(write.add("Gemm", flat, *linear, transB=1), "output_layer.4")
    length = write.add("ReduceL2", found, axes=[1], keepdims=1)
    write.nodes.append(onnx.helper.make_node("Div", [found, length], ["embedding"], name="Div_last"))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        write.nodes,
        "ir_se",
        [onnx.helper.make_tensor_value_info("face", kind, ["n", 3, sizes.side, sizes.side])],
        [onnx.helper.make_tensor_value_info("embedding", kind, ["n", sizes.width])],
        list(write.weights.values()),
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _unit(write: _Writer, maps: str, name: str, unit: UnitSizes) -> str:
    if unit.enter != unit.leave:
        shortcut = write.convolved(maps, f"{name}.shortcut_layer.0", unit.stride)
        shortcut = write.normalised(shortcut, f"{name}.shortcut_layer.1")
    else:
        shortcut = write.add("MaxPool", maps, kernel_shape=[1, 1], strides=[unit.stride] * 2)
    inner = f"{name}.res_layer"
    found = write.convolved(write.normalised(maps, f"{inner}.0"), f"{inner}.1", margin=1)
    found = write.convolved(write.bent(found, f"{inner}.2"), f"{inner}.3", unit.stride, 1)
    found = write.normalised(found, f"{inner}.4")
    squeezed = write.add("Relu", write.convolved(write.add("GlobalAveragePool", found), f"{inner}.5.fc1"))
    scale = write.add("Sigmoid", write.convolved(squeezed, f"{inner}.5.fc2"))
    return write.add("Add", write.add("Mul", found, scale), shortcut)
