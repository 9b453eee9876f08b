"""The family of face-embedding networks in ONNX: where they lie, how one is chosen, and what is said of it."""

import math
from pathlib import Path

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.face_encoder import (
    FACE_TAPS,
    FaceEncoder,
    convolutions_in,
    fingerprint_of,
    load_face_encoder,
    network_fingerprint,
)
from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in, recognises
from ireu_cli.encoders.files.networks import load_network
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.groups import groups_of_network
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.layouts.layout import NETWORK
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import EncoderParams

_FLOAT16 = 10
"""The number of half precision in onnx."""


def face_network(source: str) -> Path | None:
    """The path of a source's face-embedding network: the .onnx file itself, or the one in a bundle or a pack.

    Raises:
        ModelError: the pack has none.
    """
    if source.endswith(".onnx"):
        return Path(source)
    bundle = find_bundle(source)
    if bundle is None:
        return recogniser_in(Path(source)) if is_pack(Path(source)) else None
    return None if bundle.face_encoder is None else bundle.folder / bundle.face_encoder


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> FaceEncoder:
    place = face_network(params.source)
    if place is None:
        raise ModelError(f"There is no face-embedding network in {params.source}", "Name an .onnx file with --encoder")
    if params.dtype != "float32":
        raise ConfigError(
            f"An ONNX network runs in the precision that it was saved in and cannot run in {params.dtype}",
            "Leave out the dtype",
        )
    return load_face_encoder(place, landmarks, device)


def _card(source: str) -> Card:
    path = face_network(source)
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
    )


FACE_NETWORKS = Family(
    title="face-embedding network",
    taps=FACE_TAPS,
    sources="an .onnx file",
    place=face_network,
    load=_load,
    card=_card,
    library="onnx",
    held_as=NETWORK,
    fingerprint_of=network_fingerprint,
)
