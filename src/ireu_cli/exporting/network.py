"""A face-embedding network in an export: the file itself or its pack, with gates behind its output."""

import hashlib
from pathlib import Path

from ireu_cli.encoders.face_encoder import FaceEncoder, with_gates
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.kinds import face_network
from ireu_cli.errors import ConfigError
from ireu_cli.exporting.pack import pack_of, write_pack
from ireu_cli.exporting.transformer import refuse_unlike
from ireu_cli.layouts.layout import NETWORK, Layout
from ireu_cli.layouts.table import AUTO, layout_named, layouts_of, plain_layout
from ireu_cli.params import Config, ExportParams
from ireu_cli.session import Session
from ireu_cli.store.files import file_sha256, write_bytes
from ireu_cli.values import WeightDelta


def check_network(source: Checkpoint | None, params: ExportParams) -> None:
    """Refuse a layout or a dtype that is not for this kind of encoder; `source` is None of a network.

    Raises:
        ConfigError: it is not.
    """
    is_network, networks = source is None, [layout.name for layout in layouts_of(NETWORK)]
    if is_network != (params.format in networks) and params.format != AUTO:
        own = " or ".join(networks) if is_network else "a layout of transformers"
        raise ConfigError(f"This encoder cannot be exported as {params.format}", f"Use --format {own}, or leave it out")
    if is_network and params.dtype not in {"auto", "float32"}:
        raise ConfigError(
            f"An ONNX network is exported in the precision that it was saved in, not in {params.dtype}",
            "Leave out the dtype",
        )


def network_layout(config: Config) -> Layout:
    """The layout to write a network in: the wanted one, or the one that it has."""
    if config.export.format != AUTO:
        return layout_named(config.export.format)
    source = config.encoder.source
    return plain_layout(NETWORK, folder=find_bundle(source) is None and is_pack(Path(source)))


def write_network(session: Session, original: FaceEncoder, delta: WeightDelta, folder: Path) -> tuple[Path, str]:
    """Write a face-embedding network and read it back; returns its place and its fingerprint."""
    config = session.config
    edited = with_gates(original, delta)
    network = face_network(config.encoder.source)
    if network is None:
        raise RuntimeError("a face-embedding network lies in a file")
    if network_layout(config).in_folder:
        left_out = write_pack(pack_of(Path(config.encoder.source), network), network, edited, folder)
        for name in left_out:
            session.talk.note(f"left out of the pack: {name}, a recogniser that insightface would fall back to")
        place, written = folder, recogniser_in(folder)
    else:
        place = written = folder / edited.file
        write_bytes(written, edited.content)
    # These very bytes were opened and run; a pack is looked up by insightface's rules.
    refuse_unlike(file_sha256(written) == hashlib.sha256(edited.content).hexdigest())
    return place, edited.fingerprint
