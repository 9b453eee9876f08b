"""The encoder that is exported: with its weights, or without them where nothing is encoded."""

from pathlib import Path

from ireu_cli.encoders.family import Family, ImageEncoder, InCheckpoint
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.errors import ArtifactError
from ireu_cli.session import Session


def open_original(session: Session, family: Family, *, at_hand: bool) -> tuple[ImageEncoder, Checkpoint | None]:
    """The encoder, and where its weights lie in files of weights.

    Args:
        session: the run.
        family: of which the encoder is.
        at_hand: photos are; without them there is nothing to encode, and the weights stay in their file.

    Raises:
        ModelError: it cannot be read, or is not the one that the delta is for.
    """
    kept = family.checkpoint
    if kept is None:
        return session.encoder(dtype="float32"), None
    source = kept.open(session.config.encoder)
    return (session.encoder(dtype="float32") if at_hand else _outline(session, kept, source)), source


def _outline(session: Session, kept: InCheckpoint, source: Checkpoint) -> ImageEncoder:
    """The encoder without its weights, taken to be the parent's; that is still to be confirmed."""
    if session.parent is None:
        raise RuntimeError("only a parent says which encoder is expected")
    with session.timed("load_encoder"):
        encoder = kept.outline(source, session.parent.encoder.fingerprint)
    return session.check_encoder(encoder)


def refuse_own_place(session: Session, family: Family, source: Checkpoint | None, out: Path) -> None:
    """Refuse to replace the original: even with --force, the encoder that the deltas need must not be lost.

    Raises:
        ArtifactError: the output is the original or contains it.
    """
    place = source.source if source is not None else family.place(session.config.encoder.source)
    if place is not None and place.resolve().is_relative_to(out.resolve()):
        raise ArtifactError(f"{out} contains the original encoder", "Name another folder with --out")
