"""Read networks in ONNX from files that others wrote, and check that their weights are at hand and that they end.

A network is a program. It can keep weights in other files, at any path, and its loops run as long as a number says.
This module trusts neither. It also refuses networks that protobuf cannot hold in one piece.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ireu_cli.encoders.files.arrived import wrong_with
from ireu_cli.encoders.files.network_sizes import graphs_in, refuse_huge
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import ContentError, inside, printable

_MOST = (1 << 31) - (1 << 20)
"""The most bytes that protobuf holds in one piece, less some room for what is added."""
_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
_MOST_NODES, _DEEPEST_CALL = 50_000, 64
"""The most nodes of a network; the largest that embed faces have some thousand. The deepest calls of functions."""
_RUNTIME = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NEWER = re.compile(
    r"Unsupported model IR version|not a registered function/op|opset \d+ is under development|is till opset"
)
_REMEDY = "Name an .onnx file, with its external data beside it"


def onnx_library() -> Any:
    """The onnx package.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError("onnx is not installed", "Install it with `pip install onnx`") from None
    return onnx


def load_network(source: Path | bytes) -> Any:
    """Read an `onnx.ModelProto` from a file, with the tensors beside it, or from bytes that hold everything.

    Raises:
        ModelError: onnx is not installed, or the network is none, leads out of its folder, has loops, or exceeds 2 GB.
    """
    network = _parsed(source)
    external = list(_external(network))
    if not external:
        return network
    if isinstance(source, bytes):
        raise ModelError("The network keeps weights outside its file", "Save it with its weights inside")
    if source.stat().st_size + sum(_bytes_of(tensor, source) for tensor in external) > _MOST:
        raise ModelError(
            f"The network {source} has more than 2 GB of weights, which one ONNX file cannot hold",
            "Name a smaller one; networks that embed faces have some hundred megabytes",
        )
    for tensor in external:
        place, offset, length = _place_of(tensor, source)
        with place.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return network


def external_files(path: Path) -> list[Path]:
    """The files beside a network that hold its tensors, by name, checked for the size that the network states.

    Raises:
        ModelError: it is no ONNX network, it has loops, or one of the files leads out of its folder or is too short.
    """
    return sorted({_place_of(tensor, path)[0] for tensor in _external(_parsed(path))})


def refuse_external(data: bytes, path: Path) -> None:
    """Refuse a network that keeps weights outside its own file.

    Raises:
        ModelError: they do, or it is no ONNX network.
    """
    if any(True for _ in _external(_parsed(data, path))):
        raise ModelError(f"The network {path} keeps weights outside its file", "Save it with its weights inside")


def session_error(error: Exception) -> tuple[str, str | None]:
    """What onnxruntime says about a network that it does not run, in one line, and a remedy."""
    text = _RUNTIME.sub("", next(iter(str(error).splitlines()), ""))
    if ".cc:" in text:
        # Where in onnxruntime's code, and in which of its functions.
        text = text.rpartition(") ")[2]
    newer = "Install a newer onnxruntime, or export the network for the installed one" if _NEWER.search(text) else None
    return printable(text, 160).rstrip(". ") or type(error).__name__, newer


def _parsed(source: Path | bytes, path: Path | None = None) -> Any:
    """Read a network without the files beside it."""
    onnx = onnx_library()
    name = source if isinstance(source, Path) else path
    why, remedy = "is not an ONNX network", _REMEDY
    if isinstance(source, Path):
        # A pipe or a device may never end.
        if not source.is_file():
            raise ModelError(f"The network {source} is no regular file", "Name an .onnx file")
        if source.stat().st_size > _MOST:
            raise ModelError(f"The network {source} is larger than 2 GB, which no ONNX file can be", "Name another")
        told = wrong_with(source)
        # A network has no sign by which it is known: what is told of its first bytes counts where it cannot be read.
        why, remedy = (why, remedy) if "is not a network" in told[0] else told
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        network = onnx.ModelProto.FromString(data)
        if not network.graph.node:
            raise ValueError("no nodes")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - protobuf's errors have no common base of their own
        raise ModelError(f"The network {name or ''} {why}", remedy) from None
    if not _is_text(network):
        raise ModelError(f"The network {name or ''} has names that are not text", remedy)
    if looped := next((node.op_type for node in _all_nodes(network) if node.op_type in _LOOPS), None):
        raise ModelError(
            f"The network {name or ''} has a loop ({looped})", "Name a network without loops: this one may never end"
        )
    if not _written_out(network) <= _MOST_NODES:
        raise ModelError(
            f"The network {name or ''} has more than {_MOST_NODES} nodes when its functions are expanded",
            "Export it without functions",
        )
    if any(graph.sparse_initializer for graph in graphs_in(network.graph)):
        raise ModelError(f"The network {name or ''} has sparse weights", "Export it with dense ones")
    refuse_huge(network, f"The network {name}" if name else "The network")
    return network


def _is_text(message: Any) -> bool:
    """Whether every text in a message can be decoded; weights are not touched.

    protobuf gives bytes, or raises, where a text is none, and whoever works with it later fails in the middle.
    """
    try:
        for field in message.DESCRIPTOR.fields:
            if field.type not in {field.TYPE_STRING, field.TYPE_MESSAGE}:
                continue
            value = getattr(message, field.name)
            if field.type == field.TYPE_STRING:
                fits = all(isinstance(text, str) for text in ([value] if isinstance(value, str | bytes) else value))
            elif hasattr(value, "__len__"):
                fits = all(map(_is_text, value))
            else:
                fits = not message.HasField(field.name) or _is_text(value)
            if not fits:
                return False
    except UnicodeDecodeError:
        return False
    return True


def _all_nodes(network: Any) -> Iterator[Any]:
    """All nodes of the graph and of the network's own functions, at every depth."""
    yield from _nodes(network.graph)
    for function in network.functions:
        yield from _nodes(function)


def _written_out(network: Any) -> float:
    """Count the nodes of a network after every call of a function is replaced by its nodes, as in onnxruntime.

    Functions that call each other can make billions of nodes from a kilobyte; calls in a circle count as infinity.
    """
    own = {(function.domain, function.name, function.overload): function for function in network.functions}
    sizes: dict[Any, float] = {}

    def size(nodes: Iterator[Any], deep: int) -> float:
        if deep > _DEEPEST_CALL:
            return math.inf
        total = 0.0
        for node in nodes:
            called = (node.domain, node.op_type, node.overload)
            if called in own and called not in sizes:
                sizes[called] = size(_nodes(own[called]), deep + 1)
            total += sizes.get(called, 1)
        return total

    return size(_nodes(network.graph), 0)


def _nodes(graph: Any) -> Iterator[Any]:
    for one in graphs_in(graph):
        yield from one.node


def _external(network: Any) -> Iterator[Any]:
    """All tensors of the network, at any depth, whose values lie outside its file."""
    graphs = [network.graph]
    graphs += [part for info in network.training_info for part in (info.initialization, info.algorithm)]
    for graph in (inner for each in graphs for inner in graphs_in(each)):
        yield from (tensor for tensor in _tensors(graph) if tensor.data_location == tensor.EXTERNAL)
    for function in network.functions:
        inner = [graph for graph in graphs_in(function) if graph is not function]
        held = (*_held(function.node), *(tensor for graph in inner for tensor in _tensors(graph)))
        yield from (tensor for tensor in held if tensor.data_location == tensor.EXTERNAL)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _held(graph.node)


def _held(nodes: Any) -> Iterator[Any]:
    """Tensors in the attributes of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _bytes_of(tensor: Any, path: Path) -> int:
    return _place_of(tensor, path)[2]


def _place_of(tensor: Any, path: Path) -> tuple[Path, int, int]:
    """The file that holds a tensor of a network, the offset in that file, and the number of bytes.

    Raises:
        ModelError: the file lies elsewhere, or is too short.
    """
    onnx = onnx_library()
    told = {entry.key: entry.value for entry in tensor.external_data}
    name = printable(tensor.name, 60)
    try:
        place = inside(path.parent, told.get("location"), f"The place of {name}")
    except ContentError as error:
        raise ModelError(f"The network {path}: {error.fact}", error.remedy) from None
    if not place.is_file():
        raise ModelError(
            f"The network {path} keeps weights in {printable(place.name)}, which does not exist",
            "Fetch that file as well",
        )
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, count = int(told.get("offset") or 0), math.prod(tensor.dims) * size
        length = int(told.get("length") or count)
    except (ValueError, KeyError, TypeError):
        offset, count, length = 0, -1, 0
    if offset < 0 or count < 0 or length != count or offset + length > place.stat().st_size:
        raise ModelError(
            f"The file {place} does not hold all of {name} as the network states it", "Fetch both files again"
        )
    return place, offset, length
