"""Cut what was appended behind a face network off again, as somebody would who has only the file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ireu_cli.encoders.files.networks import load_network
from ireu_cli.encoders.files.onnx_session import open_session

_MOST = 64
"""The most tensors that are looked at: whatever was appended is not longer."""


def cut_back(content: bytes, pixels: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What the network says before its last steps.

    It looks, from the output backwards, for the first tensor that everything else in front of the output passes
    through, and that has the form of the output. No name of a node or tensor is looked at.

    Args:
        content: a network in ONNX with one input and one output (n, width).
        pixels: float32 (n, 3, side, side), as the network takes them.

    Returns:
        float32 (n, width); None if there is no such tensor.
    """
    network = load_network(content)
    width = None
    for name in (network.graph.output[0].name, *_narrow(network.graph)):
        session = _ending_at(network, name)
        first = _run(session, pixels[:1])
        if width is None:
            width = first.shape[-1]
        elif first.shape == (1, width):
            return np.concatenate([first, *(_run(session, row[None]) for row in pixels[1:])])
    return None


def _narrow(graph: Any) -> Iterator[str]:
    """Tensors through which everything passes that reaches the output, the last first."""
    fixed = {one.name for one in graph.initializer}
    for node in graph.node:
        if all(name in fixed for name in node.input if name):
            fixed |= set(node.output)
    live, left = {graph.output[0].name}, _MOST
    for node in reversed(graph.node):
        if live.isdisjoint(node.output):
            continue
        live -= set(node.output)
        live |= {name for name in node.input if name and name not in fixed}
        if len(live) == 1 and left:
            left -= 1
            yield next(iter(live))


def _ending_at(network: Any, name: str) -> Any:
    """A session of the network that gives one tensor alone."""
    del network.graph.output[:]
    network.graph.output.add().name = name
    return open_session(network.SerializeToString(), "cpu")


def _run(session: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return found
