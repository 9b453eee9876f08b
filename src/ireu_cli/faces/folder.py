"""Folders of photos: the people in them, the files that count, and the notes for the user."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError, look
from ireu_cli.faces.formats import ENDINGS, UNREAD_ENDINGS
from ireu_cli.faces.listing import Listing, Person, list_folder, list_person, place_of
from ireu_cli.faces.photo_files import digest_photo, most_bytes, why_not_opened
from ireu_cli.params import DataParams
from ireu_cli.support.photo_table import DIGEST, PhotoColumns, PhotoTable, keys_of
from ireu_cli.values import People, Photo, Unread

_TOLD = 16
"""The number of photos between two progress messages."""


class Memory(Protocol):
    """Digests of photos that were read before."""

    def recognise(self, files: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Digests (n, 32) of all of these files and keyed ones, if it knows that none has changed; else None."""

    def digest(self, file: str, read: Callable[[str], str]) -> bytes:
        """The 32 bytes of a file's SHA-256, which `read` gives as hex if it is not known, and maybe 32 keyed ones.

        Raises:
            BadPhotoError, OSError: it cannot be read.
        """


class _Nothing:
    """No memory: every file is read."""

    def recognise(self, _files: Sequence[str]) -> None:
        """See `Memory`."""

    def digest(self, file: str, read: Callable[[str], str]) -> bytes:
        """See `Memory`."""
        return bytes.fromhex(read(file))


def scan_people(
    folder: Path,
    flag: str,
    flat_means: Literal["one person", "everybody"],
    memory: Memory | None = None,
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
        memory: knows digests of files that did not change. By default every file is read.
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
    is_everybodys = bool(top.photos) and flat_means == "everybody"
    groups = [[file] for file in top.photos] if is_everybodys else [person.photos for person in people]
    folders = (folder,) * len(groups) if is_everybodys else tuple(person.folder for person in people)
    with nullcontext(_nothing) if progress is None else progress(sum(map(len, groups))) as advance:
        columns, unread = _digest(groups, memory or _Nothing(), _reader(data), advance)
    photos, copies = _without_copies(columns)
    for number, person in enumerate(people):
        unread += [Unread(number, f"a folder of person {number + 1}", path, why) for path, why in person.closed]
    notes = [*_notes(top, found), *([f"{copies} second copies of the same photo are ignored"] if copies else [])]
    labelled = bool(top.folders) or flat_means == "one person"
    return People(photos, labelled, tuple(notes), tuple(unread), folders)


def folders_of_people(folder: Path) -> list[Path]:
    """The folder of each person whom `scan_people` would find with photos, by their names alone; no photo is opened.

    Raises:
        PhotoError: it is no folder, or cannot be opened.
    """
    top = _top(folder, "--targets", "")
    return [person.folder for person in _people(folder, top) if person.photos and not person.is_circle]


def choose_photos(people: People, limit: int | None, generator: torch.Generator) -> People:
    """Choose at most `limit` photos of each person at random; None means all."""
    if limit is None:
        return people
    chosen, first = np.zeros(people.photos.total, np.bool_), 0
    for size in people.photos.sizes.tolist():
        chosen[first + torch.randperm(size, generator=generator)[:limit].numpy()] = True
        first += size
    return replace(people, photos=people.photos.keep(chosen))


def split_people(people: People, holdout: float, generator: torch.Generator) -> tuple[People, People]:
    """Split at random by person into (used in unlearning, held out for verification)."""
    count = len(people.photos)
    held = np.zeros(count, np.bool_)
    held[torch.randperm(count, generator=generator)[: int(count * holdout)].numpy()] = True
    return replace(people, photos=people.photos.some(~held)), replace(people, photos=people.photos.some(held))


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
        if not top.photos or any(map(os.path.isfile, top.photos)):
            return top
        # There are no photos, so a folder with the ending of a photo is a person's.
        return list_folder(folder, of_people=True)
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
        if person.others:
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
    groups: Sequence[Sequence[str]], memory: Memory, read: Callable[[str], str], advance: Callable[[int, str], None]
) -> tuple[PhotoColumns, list[Unread]]:
    """Digest the files of each person; those that cannot be read are in no row."""
    files = list(chain.from_iterable(groups))
    sizes = list(map(len, groups))
    persons = np.repeat(np.arange(len(groups)), sizes)
    indices = np.arange(len(files)) - np.repeat(np.cumsum([0, *sizes])[:-1], sizes)
    unread: list[Unread] = []
    if (known := memory.recognise(files)) is not None:
        advance(len(files), "")
        return PhotoColumns(files, persons, indices, *known), unread
    rows: list[bytes] = []
    good = np.ones(len(files), np.bool_)
    for place, file in enumerate(files):
        if (place + 1) % _TOLD == 0:
            advance(_TOLD, "")
        try:
            rows.append(memory.digest(file, read))
        except (BadPhotoError, OSError) as error:
            good[place] = False
            why = str(error) if isinstance(error, BadPhotoError) else why_not_opened(error)
            number = int(persons[place])
            unread.append(Unread(number, Photo(number, int(indices[place]), file, "").label, Path(file), why))
    advance(len(files) % _TOLD, "")
    found = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), len(rows[0]) if rows else DIGEST)
    names = [file for file, is_good in zip(files, good, strict=True) if is_good] if unread else files
    return PhotoColumns(names, persons[good], indices[good], found[:, :DIGEST], found[:, DIGEST:]), unread


def _without_copies(columns: PhotoColumns) -> tuple[PhotoTable, int]:
    """The people without second copies of the same bytes, and the number of copies."""
    table, keys = PhotoTable.of(columns), keys_of(columns.digests)
    copies = len(keys) - len(set(keys))
    if copies:
        seen: set[bytes] = set()
        first = (not (key in seen or seen.add(key)) for key in keys)  # type: ignore[func-returns-value]
        table = table.keep(np.fromiter(first, np.bool_, len(keys)))
    return table, copies
