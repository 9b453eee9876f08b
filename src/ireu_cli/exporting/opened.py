"""The encoder that is exported: with its weights, or without them where nothing is encoded."""

from dataclasses import dataclass
from pathlib import Path

from ireu_cli.encoders.families import family_of
from ireu_cli.encoders.family import Family, ImageEncoder, InCheckpoint
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.errors import ArtifactError
from ireu_cli.session import Session


@dataclass(frozen=True)
class Original:
    """The encoder that is exported.

    Attributes:
        family: its family.
        encoder: the encoder, without its weights where they stay in their file.
        source: the files of its weights; None if the encoder is written whole.
    """

    family: Family
    encoder: ImageEncoder
    source: Checkpoint | None


def open_original(session: Session, *, at_hand: bool) -> Original:
    """Open the encoder that the delta is for.

    Args:
        session: the run.
        at_hand: the photos are available. Without them there is nothing to encode, and the weights stay in their file.

    Raises:
        ModelError: it cannot be read, or the delta is for another encoder.
    """
    config = session.config.encoder
    family = family_of(config.source, config.tap)
    kept = family.checkpoint
    if kept is None:
        return Original(family, session.encoder(dtype="float32"), None)
    source = kept.open(config)
    return Original(family, session.encoder(dtype="float32") if at_hand else _outline(session, kept, source), source)


def _outline(session: Session, kept: InCheckpoint, source: Checkpoint) -> ImageEncoder:
    """The encoder without its weights, taken to be the parent's; that is still to be confirmed."""
    if session.parent is None:
        raise RuntimeError("only a parent says which encoder is expected")
    with session.timed("load_encoder"):
        encoder = kept.outline(source, session.parent.encoder.fingerprint)
    return session.check_encoder(encoder)


def refuse_own_place(session: Session, original: Original, out: Path) -> None:
    """Refuse to replace the original: even --force must not delete the encoder that deltas are for.

    Raises:
        ArtifactError: the output is the original, or holds it.
    """
    source = original.source
    place = source.source if source is not None else original.family.place(session.config.encoder.source)
    if place is not None and place.resolve().is_relative_to(out.resolve()):
        raise ArtifactError(f"{out} contains the original encoder", "Name another folder with --out")
