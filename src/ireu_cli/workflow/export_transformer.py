"""A transformer's files in an export: the original is read beside its copy, and what was written is read back."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

from ireu_cli import __version__
from ireu_cli.errors import ModelError, VanishedEditError
from ireu_cli.manifest import Manifest
from ireu_cli.models.card import groups_of
from ireu_cli.models.checkpoint import Checkpoint
from ireu_cli.models.clip import Encoder, finite_fingerprint, refuse_foreign
from ireu_cli.models.encoders import ImageEncoder
from ireu_cli.models.fingerprint import Print, fingerprint_from, prints_by
from ireu_cli.store.artifacts import EXPORT_MANIFEST_NAME
from ireu_cli.values import Json, WeightDelta
from ireu_cli.workflow.export_files import Edit, layout_for, served_dtype, write_beside, write_weights
from ireu_cli.workflow.session import Session

Result = TypeVar("Result")


@contextmanager
def beside(work: Callable[[Callable[[], bool]], Result]) -> Iterator[Future[Result]]:
    """Do work in a thread of its own, which can ask whether it is still wanted."""
    over = Event()
    with ThreadPoolExecutor(1) as threads:
        try:
            yield threads.submit(work, over.is_set)
        finally:
            over.set()


def prints_of(
    session: Session, original: ImageEncoder, source: Checkpoint, is_over: Callable[[], bool]
) -> dict[str, Print]:
    """The prints of the weights that are copied, which are to be those of the encoder.

    Raises:
        ModelError: they are not.
    """
    if not isinstance(original, Encoder):
        raise RuntimeError("only transformers lie in checkpoints")
    prints = prints_by(original.model.state_dict(), source.__getitem__, is_over)
    fingerprint = finite_fingerprint(session.config.encoder.source, prints)
    # Those of an outline were read nowhere else; beside loaded ones, transformers chooses files by itself.
    if next(original.model.parameters()).is_meta:
        session.refuse_other(fingerprint)
    elif fingerprint != original.fingerprint:
        raise ModelError(
            f"The weights in {source.parts[0].path.name} are not those that were loaded from {source.source}",
            "Leave one kind of weights in the folder",
        )
    return prints


def write_transformer(
    session: Session,
    parent: Manifest,
    original: ImageEncoder,
    source: Checkpoint,
    prints: Future[dict[str, Print]],
    delta: WeightDelta,
    folder: Path,
) -> tuple[Path, str, Mapping[Path, str]]:
    """Write a transformer and read it back; returns its place, its fingerprint, and the SHA-256 of copied files.

    Raises:
        ModelError: the source is not the encoder, or what was written cannot be read back.
    """
    if not isinstance(original, Encoder):
        raise RuntimeError("only transformers lie in checkpoints")
    params = session.config.export
    refuse_foreign(delta, original.model.state_dict())
    edit = Edit(source, delta, layout_for(params.format, source), params.dtype, groups_of(source))
    with session.timed("write"):
        written = write_weights(edit, original, folder)
        own = prints.result()
        new = {name for name in own if edit.touches(name)}
        edited = own | prints_by(new, edit.tensor)
        refuse_unlike(written.holds(edited, new))
    if source.has_changed():
        raise ModelError(f"The weights in {source.source} changed while they were copied", "Export again")
    if infinite := sorted(name for name in new if not edited[name].is_finite):
        raise VanishedEditError(
            f"In {served_dtype(params.dtype, source)} the edit of {infinite[0]} is beyond the largest number",
            "Export in float32",
        )
    fingerprint = fingerprint_from(edited)
    told: dict[str, Json] = {
        "tool_version": __version__,
        "original_encoder": original.fingerprint,
        "edited_encoder": fingerprint,
        "delta_manifest": parent.digest,
        "record": EXPORT_MANIFEST_NAME,
    }
    write_beside(edit, original, folder, told)
    return written.place, fingerprint, written.copies


def refuse_unlike(alike: bool) -> None:
    """Refuse an export that is not what was written.

    Raises:
        ModelError: it is not.
    """
    if not alike:
        raise ModelError(
            "The exported encoder, read back, is not the one that was written", "Report this as a bug of ireu"
        )
