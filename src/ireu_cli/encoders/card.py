"""What an encoder in a file is, told from its tensors: its sizes, its groups, and which edits reach which tap."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.encoders.face_encoder import convolutions_in, fingerprint_of
from ireu_cli.encoders.files.checkpoint import Checkpoint, encoder_in, open_whole
from ireu_cli.encoders.files.clip_files import outline_of
from ireu_cli.encoders.files.face_pack import recognises
from ireu_cli.encoders.files.fingerprint import fingerprint_by
from ireu_cli.encoders.files.foreign import ForeignSizes, foreign_sizes
from ireu_cli.encoders.files.networks import load_network
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.groups import groups_of, groups_of_network
from ireu_cli.encoders.kinds import face_network
from ireu_cli.encoders.reach import reach_of
from ireu_cli.errors import ModelError
from ireu_cli.layouts.layout import NETWORK
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import FACE_TAPS, Tap

_FLOAT16 = 10
"""How onnx numbers half precision."""


@dataclass(frozen=True)
class Card:
    """An encoder as it lies in a file."""

    kind: str
    layout: str
    architecture: str
    dtype: str
    parameters: int
    fingerprint: str
    groups: tuple[str, ...]
    taps: tuple[Tap, ...]
    sites: Mapping[str, tuple[Tap, ...]]
    """Of each part whose weights an edit may change, the taps that change with it."""


def card_of(source: str) -> Card:
    """Say what an encoder is; a transformer's tensors are read one after another and never held together.

    Args:
        source: a file, a folder, a pack, or a bundle with generators.

    Raises:
        ModelError: not there, or no encoder of a known kind.
    """
    bundle = find_bundle(source)
    place = Path(source) if bundle is None else bundle.encoder_folder
    network = face_network(source) if bundle is None else None
    if network is not None:
        return _face_card(network, plain_layout(NETWORK, folder=place.is_dir()).name)
    if not place.exists():
        raise ModelError(
            f"{source} does not exist", "Name a file or a folder; a hub model is fetched by its owner's tools"
        )
    whole = open_whole(place)
    foreign = foreign_sizes(whole)
    return _transformer_card(encoder_in(whole)) if foreign is None else _foreign_card(whole, foreign)


def _foreign_card(whole: Checkpoint, found: ForeignSizes) -> Card:
    """Of an encoder that is not edited."""
    own = {name: f"{found.prefix}{name}" for name in found.names}
    return Card(
        kind=f"{found.kind}, not edited by ireu",
        layout=whole.layout.name,
        architecture=f"{found.hidden} wide, {found.blocks} blocks, patches of {found.patch}",
        dtype=" and ".join(whole.dtypes(own.values())),
        parameters=sum(whole[name].numel() for name in own.values()),
        fingerprint=fingerprint_by(own, lambda name: whole[own[name]]),
        groups=found.groups,
        taps=(),
        sites={},
    )


def _transformer_card(checkpoint: Checkpoint) -> Card:
    model = outline_of(checkpoint)
    config, names = model.config, list(model.state_dict())
    blocks, anatomy = config.num_hidden_layers, checkpoint.anatomy
    parts = {
        f"blocks 0 to {blocks - 2}": "vision_model.encoder.layers.0.",
        f"block {blocks - 1}": f"vision_model.encoder.layers.{blocks - 1}.",
        # What comes before the blocks changes what they do.
        **{part: start for part, start in anatomy.parts.items() if anatomy.first_tap[part]},
    }
    end = "" if checkpoint.is_siglip else f"projection to {config.projection_dim}, "
    return Card(
        kind=anatomy.kind,
        layout=checkpoint.layout.name,
        architecture=f"{config.hidden_size} wide, {blocks} blocks, patches of {config.patch_size}, "
        f"{config.image_size} px, {end}{config.hidden_act}",
        dtype=" and ".join(checkpoint.dtypes(names)),
        parameters=sum(checkpoint[name].numel() for name in names),
        fingerprint=fingerprint_by(names, checkpoint.__getitem__),
        groups=groups_of(checkpoint),
        taps=anatomy.taps,
        sites={part: reach_of([start + "x"], blocks, anatomy).taps for part, start in parts.items()},
    )


def _face_card(path: Path, layout: str) -> Card:
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
        kind="face-embedding network",
        layout=layout,
        architecture=f"{convolutions} convolutions, {shapes[0]} to {shapes[1]}, opset "
        f"{max((entry.version for entry in network.opset_import), default='unknown')}",
        dtype="float16" if _FLOAT16 in kinds else "float32",
        parameters=sum(math.prod(tensor.dims) for tensor in network.graph.initializer),
        fingerprint=fingerprint_of(network),
        groups=groups_of_network(convolutions),
        taps=FACE_TAPS,
        sites={"output": FACE_TAPS},
    )
