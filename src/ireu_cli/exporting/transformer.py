"""Export a transformer: the original is read while it is copied, and the export is read back."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from torch import Tensor

from ireu_cli import __version__
from ireu_cli.encoders.clip import finite_fingerprint, refuse_foreign
from ireu_cli.encoders.family import ImageEncoder, need_blocks
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.fingerprint import Print, fingerprint_from, prints_by
from ireu_cli.encoders.groups import groups_of
from ireu_cli.errors import ModelError, VanishedEditError
from ireu_cli.exporting.layouts import Edit, layout_for, served_dtype, write_beside, write_weights
from ireu_cli.exporting.prints import kept_prints
from ireu_cli.manifest import Manifest
from ireu_cli.session import Session
from ireu_cli.store.files import files_below, flush
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME
from ireu_cli.values import Json, WeightDelta

Result = TypeVar("Result")
Prints = Future[dict[str, Print]]
"""Prints of tensors by name, once they are made."""
_MEGABYTE = 1 << 20


class Aside:
    """Work in threads of its own, which can ask whether it was stopped."""

    def __init__(self, threads: Executor, over: Event) -> None:
        """Take the pool that runs the work, and the event that stops it."""
        self._threads, self._over = threads, over

    def do(self, work: Callable[[Callable[[], bool]], Result]) -> Future[Result]:
        """Start a piece of work; it is given a function that says whether to stop."""
        return self._threads.submit(work, self._over.is_set)


@contextmanager
def aside() -> Iterator[Aside]:
    """Run work in the background; on exit, after an error or an interruption too, work that still runs is stopped."""
    over = Event()
    with ThreadPoolExecutor() as threads:
        try:
            yield Aside(threads, over)
        finally:
            over.set()


def prints_of(
    session: Session, original: ImageEncoder, source: Checkpoint, is_over: Callable[[], bool]
) -> dict[str, Print]:
    """The prints of the weights that are copied; they must be those of the encoder.

    They are computed, or known from an earlier export.

    Raises:
        ModelError: they differ.
    """
    encoder = need_blocks(original, "A checkpoint")

    def read(names: Collection[str]) -> dict[str, Print]:
        with session.talk.progress("reading weights", len(names)) as advance:

            def tensor(name: str) -> Tensor:
                advance(1, "")
                return source[name]

            return prints_by(names, tensor, is_over)

    prints = kept_prints(session.run.prints, source, encoder.model.state_dict(), read)
    fingerprint = finite_fingerprint(session.config.encoder.source, prints)
    # Those of an outline were read nowhere else; beside loaded ones, transformers chooses files by itself.
    if next(encoder.model.parameters()).is_meta:
        session.refuse_other(fingerprint)
    elif fingerprint != original.fingerprint:
        raise ModelError(
            f"The weights in {source.parts[0].path.name} differ from those that were loaded from {source.source}",
            "Keep only one file format of weights in the folder",
        )
    return prints


def edit_of(session: Session, source: Checkpoint, delta: WeightDelta) -> Edit:
    """The edit of a source, as it is going to be written.

    Raises:
        ConfigError: it cannot be written in the wanted layout.
    """
    params = session.config.export
    return Edit(source, delta, layout_for(params.format, source), params.dtype, groups_of(source))


def write_transformer(
    session: Session,
    parent: Manifest,
    original: ImageEncoder,
    edit: Edit,
    prints: Prints,
    folder: Path,
    beside: Aside,
) -> tuple[Path, str, Future[None]]:
    """Write a transformer and read it back; returns its path, its fingerprint, and a function that waits for the disk.

    Raises:
        ModelError: the source is not the encoder, or what was written cannot be read back.
    """
    encoder = need_blocks(original, "A checkpoint")
    refuse_foreign(edit.delta, encoder.model.state_dict())
    size = sum(part.path.stat().st_size for part in edit.source.parts)
    with session.timed("write"):
        with session.talk.progress("writing weights, MB", size // _MEGABYTE) as advance:
            written = write_weights(edit, encoder, folder, _in_megabytes(advance))
        # Named now: what is written later comes and goes under temporary names.
        flushed = beside.do(partial(flush, files_below(folder)))
        own = prints.result()
        new = {name for name in own if edit.touches(name)}
        edited = own | prints_by(new, edit.tensor)
        refuse_unlike(written.holds(edited, new))
    refuse_changed(edit.source)
    if infinite := sorted(name for name in new if not edited[name].is_finite):
        raise VanishedEditError(
            f"The edit of {infinite[0]} exceeds the largest number of {served_dtype(edit.dtype, edit.source)}",
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
    write_beside(edit, encoder, folder, told)
    return written.place, fingerprint, flushed


def _in_megabytes(advance: Callable[[int, str], None]) -> Callable[[int], None]:
    done = 0

    def add(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        advance(done // _MEGABYTE - before // _MEGABYTE, "")

    return add


def refuse_changed(source: Checkpoint) -> None:
    """Refuse an original that has changed since it was opened.

    Raises:
        ModelError: it has changed.
    """
    if source.has_changed():
        raise ModelError(f"The weights in {source.source} changed during the export", "Export again")


def refuse_unlike(alike: bool) -> None:
    """Refuse an export that differs from what was written.

    Raises:
        ModelError: it differs.
    """
    if not alike:
        raise ModelError(
            "The exported encoder, read back, differs from the one that was written", "Report this as a bug of ireu"
        )
