"""The family of face-embedding networks in ONNX: where they lie, how one is chosen, and what is said of it."""

import math
from pathlib import Path

from ireu_cli.encoders.card import ANY_NUMBER, Card
from ireu_cli.encoders.face_encoder import (
    FACE_TAPS,
    FaceEncoder,
    convolutions_in,
    fingerprint_of,
    load_face_encoder,
    network_fingerprint,
)
from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.face_pack import network_of, recognises
from ireu_cli.encoders.files.networks import load_network
from ireu_cli.encoders.groups import groups_of_network
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.layouts.layout import NETWORK
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import EncoderParams

_FLOAT16 = 10
"""The number of half precision in onnx."""


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> FaceEncoder:
    place = network_of(params.source)
    if place is None:
        raise ModelError(f"There is no face-embedding network in {params.source}", "Name an .onnx file with --encoder")
    if params.dtype != "float32":
        raise ConfigError(
            f"An ONNX network runs in the precision that it was saved in and cannot run in {params.dtype}",
            "Leave out the dtype",
        )
    return load_face_encoder(place, landmarks, device)


def _card(source: str) -> Card:
    path = network_of(source)
    if path is None:
        raise ModelError(f"There is no face-embedding network in {source}", "Name an .onnx file")
    network = load_network(path)
    if not recognises(network):
        raise ModelError(f"{path} does not map an aligned face to one embedding", "Name an ArcFace network")
    kinds = {tensor.data_type for tensor in network.graph.initializer}
    convolutions = convolutions_in(network)
    shapes = [
        "x".join(str(dimension.dim_value or "any") for dimension in entry.type.tensor_type.shape.dim)
        for entry in (network.graph.input[0], network.graph.output[0])
    ]
    return Card(
        kind=FACE_NETWORKS.title,
        layout=plain_layout(NETWORK, folder=Path(source).is_dir()).name,
        architecture=f"{convolutions} convolutions, {shapes[0]} to {shapes[1]}, opset "
        f"{max((entry.version for entry in network.opset_import), default='unknown')}",
        dtype="float16" if _FLOAT16 in kinds else "float32",
        parameters=sum(math.prod(tensor.dims) for tensor in network.graph.initializer),
        fingerprint=fingerprint_of(network),
        groups=groups_of_network(convolutions),
        taps=FACE_TAPS,
        sites={"output": FACE_TAPS},
        holds=ANY_NUMBER,
        files=(path,),
    )


FACE_NETWORKS = Family(
    title="face-embedding network",
    taps=FACE_TAPS,
    sources="an .onnx file",
    place=network_of,
    load=_load,
    card=_card,
    library="onnx",
    held_as=NETWORK,
    fingerprint_of=network_fingerprint,
)
