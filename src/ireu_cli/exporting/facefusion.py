"""Export a network for FaceFusion, which compares a checksum and takes the original again if it differs.

FaceFusion (3.8, `hash_helper.py`, `download.py`, `face_recognizer.py`) looks for one name. It compares the text in the
file of that name that ends in `.hash` with the CRC-32 of the network's bytes, as eight hexadecimal digits in lower case
without an end of line. If the two differ, it fetches the original, and deletes what still differs then.
"""

import zlib
from pathlib import Path

from ireu_cli.encoders.face_encoder import prepares_itself
from ireu_cli.encoders.files.networks import load_network
from ireu_cli.errors import ModelError
from ireu_cli.layouts.layout import Layout

_INPUT, _SIDE = "input", 112
"""The name by which FaceFusion hands the face to the network, and the face's side in pixels."""
_REMEDY = "Name FaceFusion's own arcface_w600k_r50.onnx with --encoder"


def refuse_unfit(content: bytes, name: str) -> None:
    """Refuse a network that FaceFusion cannot run, or that it would give other pixels than ireu did.

    Raises:
        ModelError: its input has another name or another size, or it scales pixels by itself.
    """
    network = load_network(content)
    initialised = {tensor.name for tensor in network.graph.initializer}
    entry = next(entry for entry in network.graph.input if entry.name not in initialised)
    if entry.name != _INPUT:
        raise ModelError(
            f"FaceFusion hands the face to an input called {_INPUT}, and the one of {name} has another name", _REMEDY
        )
    sides = [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim[2:]]
    if sides != [_SIDE, _SIDE] or prepares_itself(network):
        raise ModelError(f"FaceFusion prepares faces for another network than {name}", _REMEDY)


def checksummed(layout: Layout, content: bytes) -> dict[str, bytes]:
    """The files of a layout with a checksum, by their names: the network, and the file beside it."""
    return {layout.file: content, str(Path(layout.file).with_suffix(".hash")): b"%08x" % zlib.crc32(content)}
