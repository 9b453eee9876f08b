"""What lies in a folder of photos, and below: photos, folders, and what is nobody's."""

import os
from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from ireu_cli.faces.formats import ENDINGS, UNREAD_ENDINGS
from ireu_cli.faces.photo_files import why_not_opened

_SYSTEM = (
    "__MACOSX",
    "lost+found",
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "@Recently-Snapshot",
    "$RECYCLE.BIN",
    "RECYCLER",
    "System Volume Information",
    "Network Trash Folder",
    "Temporary Items",
)
SYSTEM = {name.casefold(): name for name in _SYSTEM}
"""Folders that systems and storage devices make beside people, as they write them, by their names in lower case. Those
that begin with a dot are hidden, and left out for that."""

Place = tuple[int, int]
"""What tells a folder from every other one: its device and its inode."""


@dataclass
class Listing:
    """What a folder holds. What is hidden is in none of the lists.

    `photos` are everything whose ending says photo, whether it can be opened or not; `system` are names of `SYSTEM`;
    `others` counts files by other endings: those of pictures that are not read, and "" for the rest.
    """

    photos: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


@dataclass
class Person:
    """What lies in a person's folder, its subfolders included.

    `photos` are sorted; `nested` counts those in subfolders; `closed` are folders that cannot be opened, and why;
    `circles` counts links to a folder that was looked through already; `folders` those that were not looked through.
    """

    folder: Path
    photos: list[str] = field(default_factory=list)
    nested: int = 0
    closed: list[tuple[Path, str]] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    circles: int = 0
    folders: int = 0

    @property
    def is_circle(self) -> bool:
        """Whether the folder is none of a person, but a link to a folder around it."""
        return bool(self.circles) and not (self.photos or self.closed or self.folders)


def list_folder(folder: Path, *, of_people: bool = False) -> Listing:
    """Sort what lies in a folder by what it is; nothing is opened.

    Args:
        folder: the folder.
        of_people: folders may have the ending of a photo there, as people's names may.

    Raises:
        OSError: it cannot be listed.
    """
    found = Listing()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            ending = _ending(entry.name)
            is_photo = ending in ENDINGS
            if _is_folder(entry) and not (is_photo and not of_people):
                system = SYSTEM.get(entry.name.casefold())
                found.system.append(system) if system else found.folders.append(folder / entry.name)
            elif is_photo:
                found.photos.append(entry.path)
            elif not ending and _leads_nowhere(entry):
                # A folder of photos on a share that is not there, rather than a file of something else.
                found.folders.append(folder / entry.name)
            else:
                found.others[ending if ending in UNREAD_ENDINGS else ""] += 1
    # In one folder names, and whole paths as texts, sort as paths do, in a fraction of the time.
    found.photos.sort()
    found.folders.sort(key=attrgetter("name"))
    return found


def list_person(folder: Path, above: frozenset[Place] = frozenset()) -> Person:
    """Go through a person's folder and, where it holds photos itself, through its subfolders.

    A folder without photos of its own is one of people, named one level too high: its subfolders are not gone through.

    Args:
        folder: the person's folder.
        above: the places of folders around it, which a link may lead back to.
    """
    person, todo, seen = Person(folder), [folder], set(above)
    while todo:
        here = todo.pop()
        place = place_of(here)
        if place in seen:
            person.circles += 1
            continue
        seen |= {place} if place else set()
        try:
            found = list_folder(here)
        except OSError as error:
            person.closed.append((here, _why_closed(here, error)))
            continue
        person.photos += found.photos
        person.nested += len(found.photos) if here != folder else 0
        person.system += found.system
        person.others += found.others
        if person.photos:
            todo += reversed(found.folders)
        else:
            person.folders = len(found.folders)
    if person.nested:
        person.photos.sort(key=lambda file: Path(file).parts)
    return person


def _ending(name: str) -> str:
    """The ending as `Path.suffix` has it, in small letters, without a path around it."""
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def _why_closed(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and folder.is_symlink():
        return "is a link that leads nowhere"
    return why_not_opened(error)


def place_of(folder: Path) -> Place | None:
    """The place of a folder, whatever path leads to it; None where it cannot be reached."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()
