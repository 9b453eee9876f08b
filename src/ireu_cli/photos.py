"""From folders to encoded photos: who takes part, how photos are read, and what the cache holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ireu_cli.encodings.refusals import no_usable_photo, refuse_or_note
from ireu_cli.errors import ConfigError, PhotoError
from ireu_cli.faces.folder import choose_photos, scan_people, split_people
from ireu_cli.manifest import PersonRecord, photos_of
from ireu_cli.session import Session
from ireu_cli.store.digests import DigestBook
from ireu_cli.support.photo_table import same_as
from ireu_cli.values import People, Photo


@dataclass(frozen=True)
class Cast:
    """Who takes part: targets, retained people that unlearning may use, and retained people that it may not."""

    targets: People
    used: People
    held: People


def load_targets(session: Session, *, limit: bool) -> People:
    """Scan the target folder; with `limit`, keep at most `data.max_photos` a person.

    Raises:
        ConfigError: no folder is given.
        PhotoError: the folder cannot be used.
    """
    data = session.config.data
    if data.targets is None:
        raise ConfigError(
            "No target photos are given, or they are no longer at their path; for a delta made of several requests "
            "you always have to name them",
            "Name their folder with --targets DIR",
        )
    targets = _scan(session, data.targets, "targets", "one person")
    return choose_photos(targets, data.max_photos if limit else None, session.random("max-photos"))


def load_retain(session: Session, targets: People) -> People:
    """Scan the retain folder; a photo that is also a target's does not count as retained.

    Raises:
        ConfigError: no folder is given.
        PhotoError: the folder cannot be used.
    """
    if session.config.data.retain is None:
        raise ConfigError(
            "No photos of other people are given, or they are no longer at their path",
            "Name a folder of them with --retain DIR",
        )
    retain = _scan(session, session.config.data.retain, "retain", "everybody")
    left = replace(retain, photos=retain.photos.keep(~same_as(retain.photos.digests, targets.photos.digests)))
    if dropped := retain.photos.total - left.photos.total:
        session.talk.note(f"retain: {dropped} photos are also photos of targets, and do not count as retained")
    return left


def load_cast(session: Session) -> Cast:
    """Scan both folders and split the retained people by `data.retain_holdout`."""
    every = load_targets(session, limit=False)
    targets = choose_photos(every, session.config.data.max_photos, session.random("max-photos"))
    retain = load_retain(session, every)
    used, held = split_people(retain, session.config.data.retain_holdout, session.random("holdout"))
    if not used.photos:
        raise PhotoError(
            "No retained people are left",
            "Add people to the --retain folder, or lower data.retain_holdout",
        )
    return Cast(targets, used, held)


def _scan(session: Session, folder: Path, what: str, flat_means: Literal["one person", "everybody"]) -> People:
    """List a folder and say what is in it; `data.bad_photos` says whether unreadable photos are refused or skipped."""
    flag, data, verbose = f"--{what}", session.config.data, session.talk.verbose
    # Files that did not change since an earlier step are not read again.
    book = DigestBook(lambda: session.run.digests(folder), session.run.keyed_bytes, is_new=not session.run.is_made)
    people = scan_people(
        folder, flag, flat_means, book, data=data, verbose=verbose,
        progress=lambda total: session.talk.progress(f"reading {what} photos", total),
    )  # fmt: skip
    if not session.executor.is_worker:
        book.keep()
    _tell(session, what, people)
    labels = {str(one.path): f"{one.label} ({one.path})" if verbose else one.label for one in people.unread}
    refuse_or_note(session, {str(one.path): one.reason for one in people.unread}, labels, flag, what)
    lost = {one.person for one in people.unread} - set(people.photos.numbers.tolist())
    if lost and what == "targets":
        raise no_usable_photo()
    if not people.photos:
        raise PhotoError(f"The folder given by {flag} holds no usable photo", "Replace the unusable photos")
    return people


def among(session: Session, people: Sequence[PersonRecord]) -> Callable[[Photo], bool]:
    """A function that says whether a photo is in a record."""
    digests = photos_of(people)
    return lambda photo: session.run.keyed_digest(photo.sha256) in digests


def _tell(session: Session, what: str, people: People) -> None:
    persons, photos = len(people.photos), people.photos.total
    session.talk.note(
        f"{what}: {persons} {'person' if persons == 1 else 'people'}, {photos} photo{'' if photos == 1 else 's'}"
    )
    for note in people.notes:
        session.talk.note(f"{what}: {note}")
