"""The encoder that is exported: its file, and the network or an outline of it."""

from pathlib import Path

from ireu_cli.encoders.clip import Encoder, outline_encoder
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import checkpoint_of
from ireu_cli.encoders.kinds import (
    checkpoint_for,
    face_network,
)
from ireu_cli.errors import ArtifactError
from ireu_cli.session import Session


def outline(session: Session) -> tuple[Encoder, Checkpoint]:
    """The encoder without its weights, taken to be the parent's; that is still to be confirmed.

    Raises:
        ModelError: it cannot be read.
    """
    if session.parent is None:
        raise RuntimeError("only a parent says what the encoder should be")
    source = checkpoint_of(session.config.encoder)
    with session.timed("load_encoder"):
        encoder = outline_encoder(source, session.parent.encoder.fingerprint)
    return session.check_encoder(encoder), source


def load_whole(session: Session) -> tuple[ImageEncoder, Checkpoint | None]:
    """The encoder with its weights, and the files of weights, where it lies in such.

    Raises:
        ModelError: it cannot be loaded, or is not the parent's.
    """
    original = session.encoder(dtype="float32")
    return original, checkpoint_for(session.config.encoder)


def refuse_own_place(session: Session, source: Checkpoint | None, out: Path) -> None:
    """Refuse to replace the original: not even --force may lose what deltas are made for.

    Raises:
        ArtifactError: the output is the original, or holds it.
    """
    place = source.source if source is not None else face_network(session.config.encoder.source)
    if place is not None and place.resolve().is_relative_to(out.resolve()):
        raise ArtifactError(f"{out} holds the original encoder", "Name another folder with --out")
