"""Folders of photos: who is in them, which files count, what is told to the user."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from ireu_cli.errors import PhotoError
from ireu_cli.values import Photo

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class People:
    """The photos of a folder by person, and what was left out, in words that name nobody."""

    photos: tuple[tuple[Photo, ...], ...]
    labelled: bool
    notes: tuple[str, ...] = ()

    @property
    def flat(self) -> list[Photo]:
        """All photos, person by person."""
        return [photo for person in self.photos for photo in person]

    def where(self, keep: Callable[[Photo], bool]) -> "People":
        """Return the photos that `keep` accepts; people keep their numbers, those without a photo vanish."""
        kept = (tuple(photo for photo in person if keep(photo)) for person in self.photos)
        return replace(self, photos=tuple(person for person in kept if person))


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan_people(
    folder: Path,
    flag: str,
    flat_means: Literal["one person", "everybody"],
    digest: Callable[[Path], str] = file_digest,
) -> People:
    """List a folder of photos and digest every file.

    Args:
        folder: `folder/<person>/*.jpg`, or `folder/*.jpg`.
        flag: the flag that named it, for messages.
        flat_means: photos without subfolders are one person's, or each somebody else's.
        digest: gives a file's sha256 (hex), or knows it; raises OSError.

    Returns:
        People in the order of the sorted folder names, photos in the order of the sorted file names. A second copy of
        the same bytes is left out, and `notes` says so.

    Raises:
        PhotoError: no such folder, no photos in it, photos beside subfolders, or a person without photos.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise PhotoError(f"The folder given by {flag} {what}", f"Name a folder of photos with {flag}")
    direct, subfolders, others = _split(folder)
    if direct and subfolders:
        raise PhotoError(
            f"The folder given by {flag} holds photos beside {len(subfolders)} subfolders",
            "Put every photo into the subfolder of its person",
        )
    notes = []
    if direct:
        groups = [direct] if flat_means == "one person" else [[path] for path in direct]
    else:
        parts = [_split(subfolder) for subfolder in subfolders]
        groups = [files for files, _, _ in parts]
        others += sum(count for _, _, count in parts)
    empty = [number for number, group in enumerate(groups, 1) if not group]
    if not groups or len(empty) == len(groups):
        raise PhotoError(
            f"The folder given by {flag} holds no photos ({others} other files)",
            f"Put photos there ({', '.join(sorted(ENDINGS))})",
        )
    if empty:
        raise PhotoError(
            f"Person {empty[0]} of the folder given by {flag} has no photos ({len(empty)} such people)",
            "Add photos, or remove the empty subfolder",
        )
    if others:
        notes.append(f"{others} files with other endings ignored")
    people, copies = _digest(groups, digest)
    if copies:
        notes.append(f"{copies} second copies of the same photo ignored")
    return People(people, labelled=bool(subfolders) or flat_means == "one person", notes=tuple(notes))


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


def _split(folder: Path) -> tuple[list[Path], list[Path], int]:
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    photos = [path for path in visible if path.is_file() and path.suffix.lower() in ENDINGS]
    folders = [path for path in visible if path.is_dir()]
    return photos, folders, len(visible) - len(photos) - len(folders)


def _digest(groups: list[list[Path]], digest_of: Callable[[Path], str]) -> tuple[tuple[tuple[Photo, ...], ...], int]:
    seen: set[str] = set()
    copies = 0
    people = []
    for number, group in enumerate(groups):
        person = []
        for index, path in enumerate(group):
            digest = _digest_of(path, number, index, digest_of)
            if digest in seen:
                copies += 1
                continue
            seen.add(digest)
            person.append(Photo(number, index, path, digest))
        if person:
            people.append(tuple(person))
    return tuple(people), copies


def _digest_of(path: Path, number: int, index: int, digest_of: Callable[[Path], str]) -> str:
    try:
        return digest_of(path)
    except OSError as error:
        raise PhotoError(
            f"Photo {index + 1} of person {number + 1} cannot be opened ({error.strerror})",
            "Correct the file's permissions, or remove it",
        ) from None
