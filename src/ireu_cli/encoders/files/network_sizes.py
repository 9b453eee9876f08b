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
_MOST_TOGETHER = 1 << 31
"""Values of all tensors; the largest networks for faces have some hundred million."""
_MOST_LENGTHS = 1 << 20
"""Numbers in all shapes that are computed."""
_WHOLE = frozenset({6, 7})
"""How onnx numbers int32 and int64."""
_MOST_IN_BRANCHES = 100_000
"""Nodes of the network for each branch; networks that embed faces have no branches, or one that an exporter left."""
_REMEDY = "Name another one: networks that embed faces do not need this"
_FOLLOWED = 17
"""From this version of its operators on, onnx follows shapes that are computed from others."""


def refuse_huge(network: Any, who: str) -> None:
    """Refuse a network that makes a tensor too large, or too many large ones, given one picture.

    onnx infers the shapes; what it cannot infer is not refused. Weights need not have been read.

    Args:
        network: an `onnx.ModelProto`.
        who: what messages call it, such as "The network w.onnx".

    Raises:
        ModelError: it does.
    """
    together = 0
    for value in _values(_skeleton(network), who):
        sizes = [size.dim_value if size.HasField("dim_value") else 1 for size in value.type.tensor_type.shape.dim]
        count = math.prod(sizes)
        together += count
        if count > _MOST_VALUES:
            shape = " x ".join(map(str, sizes[:8]))
            raise ModelError(f"{who} makes a tensor of {shape} values ({printable(value.name, 60)})", _REMEDY)
        if together > _MOST_TOGETHER:
            raise ModelError(f"{who} makes tensors of more than {_MOST_TOGETHER} values together", _REMEDY)


def _values(skeleton: Any, who: str) -> Iterator[Any]:
    """What is known of every tensor, also inside branches, which are inferred as networks of their own."""
    whole = _inferred(skeleton, who)
    graph = whole.graph
    yield from graph.value_info
    yield from graph.output
    inners = [*itertools.islice(graphs_in(graph), 1, None)]
    if len(graph.node) * len(inners) > _MOST_IN_BRANCHES:
        raise ModelError(
            f"{who} has {len(inners)} branches beside {len(graph.node)} nodes", "Export it without branches"
        )
    for inner in inners:
        # Its operators are of the version that the whole was brought to.
        alone = type(whole)(ir_version=whole.ir_version, opset_import=whole.opset_import)
        alone.graph.node.extend(inner.node)
        alone.graph.input.extend([*graph.input, *graph.value_info])
        alone.graph.initializer.extend([*graph.initializer, *inner.initializer])
        yield from _inferred(alone, who).graph.value_info


def _inferred(skeleton: Any, who: str) -> Any:
    """The network with the shapes that can be inferred, after its functions are written out.

    Raises:
        ModelError: it computes with shapes so long that following them would take more memory than any machine has.
    """
    import onnx
    import onnx.inliner
    import onnx.version_converter

    inlined = _tried(onnx.inliner.inline_local_functions, skeleton)
    if any(one.domain in {"", "ai.onnx"} and one.version < _FOLLOWED for one in inlined.opset_import):
        inlined = _tried(lambda network: onnx.version_converter.convert_version(network, _FOLLOWED), inlined)
    plain = _tried(onnx.shape_inference.infer_shapes, inlined)
    lengths = [_length(value) for graph in graphs_in(plain.graph) for value in graph.value_info]
    if max(lengths, default=0) > _SHAPES or sum(lengths) > _MOST_LENGTHS:
        raise ModelError(f"{who} computes with shapes of {max(lengths)} numbers", _REMEDY)
    return _tried(lambda network: onnx.shape_inference.infer_shapes(network, data_prop=True), inlined)


def _tried(change: Callable[[Any], Any], before: Any) -> Any:
    try:
        return change(before)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - what onnx cannot work with is for onnxruntime to refuse
        return before


def _length(value: Any) -> int:
    """How many numbers a tensor has that may say a shape, whose values onnx carries along; 0 of others."""
    kind = value.type.tensor_type
    dims = kind.shape.dim
    return dims[0].dim_value if kind.elem_type in _WHOLE and len(dims) == 1 else 0


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
