"""A folder of links to the photos of everybody whom a delta removes and whose photos are at hand."""

import os
import shutil
from pathlib import Path

from ireu_cli.batching.chain import Chain
from ireu_cli.batching.plan import Plan
from ireu_cli.errors import ArtifactError, PhotoError
from ireu_cli.faces.folder import folders_of_people
from ireu_cli.store.files import disk_errors, write_folder


def link_people(plan: Plan, chain: Chain) -> tuple[Path | None, list[str]]:
    """Make the folder anew.

    Returns:
        The folder, None if nobody is at hand; and the case of each of its people in their order.

    Raises:
        ArtifactError: something lies there that is no link of ours.
    """
    folder, found = plan.place / "people", _at_hand(plan, chain)
    with disk_errors(folder):
        if os.path.lexists(folder) and not _is_ours(folder):
            raise ArtifactError(f"In {folder} lies something that ireu did not put there", "Move it away")

    def fill(new: Path) -> None:
        for number, (_, photos) in enumerate(found, 1):
            (new / f"{number:05d}").symlink_to(photos.absolute(), target_is_directory=True)

    if found:
        write_folder(folder, fill)
    elif folder.exists():
        shutil.rmtree(folder)
    return folder if found else None, [case for case, _ in found]


def _at_hand(plan: Plan, chain: Chain) -> list[tuple[str, Path]]:
    found = []
    for request in plan.requests:
        if request.case not in chain.cases or request.photos is None:
            continue
        try:
            found += [(request.case, folder) for folder in folders_of_people(request.photos)]
        except (PhotoError, OSError):
            continue  # Photos of a case that is done may be gone.
    return found


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and folder.is_dir() and all(entry.is_symlink() for entry in folder.iterdir())
