"""How large the tensors of an ONNX network become while it runs: a few nodes can ask for more than any machine has."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import printable

_MOST_VALUES = 1 << 28
"""Values of one tensor, a gigabyte in single precision; the largest networks for faces have some ten million."""
_SHAPES = 1 << 10
"""Tensors of so many values may say shapes, and keep their values here; larger ones are weights."""


_MOST_BRANCHES = 32
"""Graphs inside nodes; networks that embed faces have none, or one or two that an exporter left."""
_FOLLOWED = 17
"""From this version of its operators on, onnx follows shapes that are computed from others."""


def refuse_huge(network: Any, name: object) -> None:
    """Refuse a network that makes a tensor too large, given one picture.

    onnx infers the shapes; what it cannot infer is not refused. Weights need not have been read.

    Args:
        network: an `onnx.ModelProto`.
        name: what messages call it.

    Raises:
        ModelError: it does.
    """
    for value in _values(_skeleton(network)):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > _MOST_VALUES:
            shape = " x ".join(map(str, sizes[:8]))
            raise ModelError(
                f"The network {name} makes a tensor of {shape} values ({printable(value.name, 60)})",
                "Name another one: networks that embed faces do not need such",
            )


def _inferred(skeleton: Any) -> Any:
    """The network with the shapes that can be inferred, after its functions are written out."""
    import onnx
    import onnx.inliner
    import onnx.version_converter

    def tried(change: Callable[[Any], Any], before: Any) -> Any:
        try:
            return change(before)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - what onnx cannot work with is for onnxruntime to refuse
            return before

    inlined = tried(onnx.inliner.inline_local_functions, skeleton)
    if any(one.domain == "" and one.version < _FOLLOWED for one in inlined.opset_import):
        inlined = tried(lambda network: onnx.version_converter.convert_version(network, _FOLLOWED), inlined)
    return tried(lambda network: onnx.shape_inference.infer_shapes(network, data_prop=True), inlined)


def _values(skeleton: Any) -> Iterator[Any]:
    """What is known of every tensor, also inside branches, which are inferred as networks of their own."""
    graph = _inferred(skeleton).graph
    yield from graph.value_info
    yield from graph.output
    for number, inner in enumerate(itertools.islice(graphs_in(graph), 1, None)):
        if number == _MOST_BRANCHES:
            raise ModelError(f"The network has more than {_MOST_BRANCHES} branches", "Export it without")
        alone = type(skeleton)(ir_version=skeleton.ir_version, opset_import=skeleton.opset_import)
        alone.graph.node.extend(inner.node)
        alone.graph.input.extend([*graph.input, *graph.value_info])
        alone.graph.initializer.extend([*graph.initializer, *inner.initializer])
        found = _inferred(alone).graph
        yield from found.value_info


def _skeleton(network: Any) -> Any:
    """The network without its weights, for one picture."""
    import onnx

    found = onnx.ModelProto(ir_version=network.ir_version, opset_import=network.opset_import)
    found.functions.extend(network.functions)
    graph = found.graph
    graph.name = network.graph.name
    graph.node.extend(network.graph.node)
    graph.input.extend(network.graph.input)
    graph.output.extend(network.graph.output)
    for value in graph.input:
        for size in value.type.tensor_type.shape.dim:
            if not size.dim_value > 0:
                size.dim_value = 1
    for value in graph.output:
        # What a file says of its results is not what comes out.
        value.type.tensor_type.ClearField("shape")
    for tensor in network.graph.initializer:
        if math.prod(tensor.dims) <= _SHAPES and tensor.data_location != tensor.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return found


def graphs_in(graph: Any) -> Iterator[Any]:
    """A graph or a function, and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from graphs_in(inner)
