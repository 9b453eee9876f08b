"""The content of a folder of photos and of its subfolders: photos, folders, and files that belong to nobody."""

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
"""Folders that systems and storage devices make, as they write them, by their names in lower case.

Folders whose names begin with a dot are left out because they are hidden."""

_USUAL = frozenset(ending for ending in ENDINGS if len(ending) == 4)
_NONE: frozenset[str] = frozenset()

Place = tuple[int, int]
"""The identity of a folder: its device and its inode."""


@dataclass
class Listing:
    """The content of a folder. Hidden entries are in none of the lists.

    `photos` are all entries with the ending of a photo, whether they can be opened or not. `system` are names in
    `SYSTEM`. `others` counts files by other endings: those of pictures that are not read, and "" for the rest.
    """

    photos: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


@dataclass
class Person:
    """The content of a person's folder, including its subfolders.

    `photos` are sorted; `nested` counts those in subfolders. `closed` are folders that cannot be opened, with the
    reason. `circles` counts links to a folder that was already searched; `folders` counts folders that were not
    searched.
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
        """Whether the folder is not a person's folder, but a link to a folder around it."""
        return bool(self.circles) and not (self.photos or self.closed or self.folders)


def list_folder(folder: Path, *, of_people: bool = False) -> Listing:
    """Sort the entries of a folder by kind; no file is opened.

    Args:
        folder: the folder.
        of_people: folders may have the ending of a photo there, because people's names may.

    Raises:
        OSError: it cannot be listed.
    """
    found = Listing()
    keep, usual = found.photos.append, _NONE if of_people else _USUAL
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            # There may be very many photos, and most of them end like this.
            if name[-4:] in usual:
                keep(entry.path)
                continue
            ending = _ending(name)
            is_photo = ending in ENDINGS
            if (of_people or not is_photo) and _is_folder(entry):
                system = SYSTEM.get(name.casefold())
                found.system.append(system) if system else found.folders.append(folder / name)
            elif is_photo:
                keep(entry.path)
            elif not ending and _leads_nowhere(entry):
                # It is more likely a folder of photos on a missing network share than a file of another kind.
                found.folders.append(folder / name)
            else:
                found.others[ending if ending in UNREAD_ENDINGS else ""] += 1
    # In one folder names, and whole paths as texts, sort as paths do, in a fraction of the time.
    found.photos.sort()
    found.folders.sort(key=attrgetter("name"))
    return found


def list_person(folder: Path, above: frozenset[Place] = frozenset()) -> Person:
    """Search a person's folder and, if it holds photos itself, its subfolders.

    A folder without photos of its own holds people, so the user named a folder one level too high. Its subfolders are
    not searched.

    Args:
        folder: the person's folder.
        above: the identities of folders around it, which a link may lead back to.
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
        if found.others:
            person.others += found.others
        if person.photos:
            todo += reversed(found.folders)
        else:
            person.folders = len(found.folders)
    if person.nested:
        person.photos.sort(key=lambda file: Path(file).parts)
    return person


def _ending(name: str) -> str:
    """The ending as in `Path.suffix`, in lower case, without making a `Path`."""
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def _why_closed(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and folder.is_symlink():
        return "is a link that leads nowhere"
    return why_not_opened(error)


def place_of(folder: Path) -> Place | None:
    """The identity of a folder, whatever path leads to it; None if it cannot be reached."""
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
