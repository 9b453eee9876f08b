"""Folders of photos: the people in them, the files that count, and the notes for the user."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError, look
from ireu_cli.faces.formats import ENDINGS, UNREAD_ENDINGS
from ireu_cli.faces.listing import Listing, Person, list_folder, list_person, place_of
from ireu_cli.faces.photo_files import digest_photo, most_bytes, why_not_opened
from ireu_cli.params import DataParams
from ireu_cli.values import People, Photo, Unread

_TOLD = 16
"""The number of photos between two progress messages."""


def scan_people(
    folder: Path,
    flag: str,
    flat_means: Literal["one person", "everybody"],
    remember: Callable[[str, Callable[[str], str]], str] | None = None,
    *,
    data: DataParams | None = None,
    verbose: bool = False,
    progress: Callable[[int], AbstractContextManager[Callable[[int, str], None]]] | None = None,
) -> People:
    """List a folder of photos and digest every file.

    Args:
        folder: `folder/<person>/*.jpg`, or `folder/*.jpg`.
        flag: the flag that named it, for messages.
        flat_means: whether photos without subfolders show one person, or a different person each.
        remember: gives a file's SHA-256 (hex), which it remembers or reads with the given function. By default every
            file is read.
        data: how large a photo may be. If its `bad_photos` is `error`, problems that the first bytes show are found
            already here; without `data`, no photo is checked.
        verbose: messages may name paths.
        progress: gets the number of files, and is called after each file.

    Returns:
        People in the order of the sorted folder names, photos in the order of the sorted paths. A second copy of the
        same bytes is left out, and `notes` says so. Unreadable files are in `unread`.

    Raises:
        PhotoError: the folder does not exist or has no photos, or it has photos beside subfolders or a person without
            photos.
    """
    named = f" ({folder})" if verbose else ""
    top = _top(folder, flag, named)
    if top.photos and top.folders:
        raise PhotoError(
            f"The folder given by {flag}{named} holds photos beside its {len(top.folders)} subfolders",
            "Put every photo into the subfolder of its person",
        )
    found = _people(folder, top)
    people = [person for person in found if not person.is_circle]
    _refuse_empty(people, _others(top, found), flag, named, verbose=verbose)
    read = _reader(data)
    known = read if remember is None else lambda file: remember(file, read)
    is_everybodys = bool(top.photos) and flat_means == "everybody"
    groups = [[file] for file in top.photos] if is_everybodys else [person.photos for person in people]
    folders = (folder,) * len(groups) if is_everybodys else tuple(person.folder for person in people)
    with nullcontext(_nothing) if progress is None else progress(sum(map(len, groups))) as advance:
        photos, unread, copies = _digest(groups, known, advance)
    for number, person in enumerate(people):
        unread += [Unread(number, f"a folder of person {number + 1}", path, why) for path, why in person.closed]
    notes = [*_notes(top, found), *([f"{copies} second copies of the same photo are ignored"] if copies else [])]
    labelled = bool(top.folders) or flat_means == "one person"
    return People(photos, labelled, tuple(notes), tuple(unread), folders)


def choose_photos(people: People, limit: int | None, generator: torch.Generator) -> People:
    """Choose at most `limit` photos of each person at random; None means all."""
    if limit is None:
        return people
    chosen: set[Photo] = set()
    for person in people.photos:
        order = torch.randperm(len(person), generator=generator)[:limit].tolist()
        chosen |= {person[position] for position in order}
    return people.where(chosen.__contains__)


def split_people(people: People, holdout: float, generator: torch.Generator) -> tuple[People, People]:
    """Split at random by person into (used in unlearning, held out for verification)."""
    count = len(people.photos)
    held = set(torch.randperm(count, generator=generator)[: int(count * holdout)].tolist())
    used = tuple(person for position, person in enumerate(people.photos) if position not in held)
    rest = tuple(person for position, person in enumerate(people.photos) if position in held)
    return replace(people, photos=used), replace(people, photos=rest)


def _top(folder: Path, flag: str, named: str) -> Listing:
    """The content of the folder that a flag named.

    Raises:
        PhotoError: it is not a folder, or cannot be opened.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise PhotoError(f"The folder given by {flag}{named} {what}", f"Name a folder of photos with {flag}")
    try:
        top = list_folder(folder)
        # If there are no photos, a folder with the ending of a photo is a person's.
        return top if any(map(os.path.isfile, top.photos)) else list_folder(folder, of_people=True)
    except OSError as error:
        raise PhotoError(
            f"The folder given by {flag}{named} {why_not_opened(error)}",
            "Correct its permissions, or name another folder",
        ) from None


def _people(folder: Path, top: Listing) -> list[Person]:
    """The folders of people, or the one folder with all photos."""
    if not top.photos:
        above = [folder, *folder.absolute().parents]
        places = frozenset(place for path in above if (place := place_of(path)))
        return [list_person(path, places) for path in top.folders]
    return [Person(folder, top.photos)]


def _others(top: Listing, people: list[Person]) -> Counter[str]:
    others = Counter(top.others)
    for person in people:
        others.update(person.others)
    return others


def _not_read(others: Counter[str]) -> str:
    """Pictures of formats that are not read, such as `3 .heic`; empty if there are none."""
    return ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()) if ending in UNREAD_ENDINGS)


def _refuse_empty(people: list[Person], others: Counter[str], flag: str, named: str, *, verbose: bool) -> None:
    """Refuse a folder without photos, and a person without photos; a folder that cannot be opened may have some."""
    if not any(person.photos or person.closed for person in people):
        pictures = f", including pictures that ireu does not read: {_not_read(others)}" if _not_read(others) else ""
        raise PhotoError(
            f"The folder given by {flag}{named} holds no photos ({others.total()} other files{pictures})",
            f"Put photos there ({', '.join(sorted(ENDINGS))})",
        )
    empty = [(number, person) for number, person in enumerate(people, 1) if not (person.photos or person.closed)]
    if empty:
        number, person = empty[0]
        called = f" ({person.folder})" if verbose else ""
        deeper = f", only {person.folders} subfolders" if person.folders else ""
        raise PhotoError(
            f"Person {number}{called} of the folder given by {flag} has no photos{deeper} ({len(empty)} such people)",
            "Put the photos into the person's own folder, or name the folder whose subfolders are people"
            if deeper
            else "Add photos, or remove the empty subfolder",
        )


def _notes(top: Listing, people: list[Person]) -> list[str]:
    """Notes about what was left out, and about photos in unusual places."""
    found: list[Listing | Person] = [top, *people]
    others = _others(top, people)
    system = sorted({name for part in found for name in part.system})
    notes = [f"{others.total()} files with other endings are ignored"] if others else []
    if pictures := _not_read(others):
        notes.append(f"some of them are pictures that ireu does not read ({pictures}): convert them to JPEG")
    if system:
        count = sum(len(part.system) for part in found)
        notes.append(f"{count} folders of the system are left out ({', '.join(system)})")
    if circles := sum(person.circles for person in people):
        notes.append(
            f"{circles} links are left out, because they lead back to a folder around them or to one seen before"
        )
    if nested := sum(person.nested for person in people):
        notes.append(f"{nested} photos are in subfolders of a person's folder, and count as that person's")
    return notes


def _reader(data: DataParams | None) -> Callable[[str], str]:
    megapixels = (data or DataParams()).max_megapixels
    early = (lambda file: look(file, megapixels)) if data and data.bad_photos == "error" else None
    return lambda file: digest_photo(Path(file), most_bytes(megapixels), early)


def _nothing(_count: int, _words: str) -> None:
    """Ignore the progress."""


def _digest(
    groups: Sequence[Iterable[str]], read: Callable[[str], str], advance: Callable[[int, str], None]
) -> tuple[tuple[tuple[Photo, ...], ...], list[Unread], int]:
    seen: set[str] = set()
    unread: list[Unread] = []
    copies = met = 0
    people = []
    for number, group in enumerate(groups):
        person = []
        for index, file in enumerate(group):
            met += 1
            if met % _TOLD == 0:
                advance(_TOLD, "")
            try:
                photo = Photo(number, index, file, read(file))
            except (BadPhotoError, OSError) as error:
                why = str(error) if isinstance(error, BadPhotoError) else why_not_opened(error)
                unread.append(Unread(number, Photo(number, index, file, "").label, Path(file), why))
                continue
            if photo.sha256 in seen:
                copies += 1
                continue
            seen.add(photo.sha256)
            person.append(photo)
        if person:
            people.append(tuple(person))
    advance(met % _TOLD, "")
    return tuple(people), unread, copies
