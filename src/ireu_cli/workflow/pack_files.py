"""An insightface pack with one network edited: a flat folder where insightface takes the edited file and no other."""

import json
import shutil
from pathlib import Path
from typing import Any

from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.models.face_encoder import FaceEncoder
from ireu_cli.models.face_pack import MANIFEST, recogniser_in, recognisers_in
from ireu_cli.store.files import file_sha256, write_bytes


def pack_of(network: Path) -> Path:
    """The pack that a network belongs to.

    Raises:
        ConfigError: insightface takes another file of that folder for recognition.
        ModelError: the folder is no pack.
    """
    taken = recogniser_in(network.parent)
    if taken.name != network.name:
        raise ConfigError(
            f"insightface takes {taken.name} of this pack for recognition, and not {network.name}",
            f"Remove {taken.name} if it is a copy, or edit that one",
        )
    return network.parent


def write_pack(pack: Path, edited: FaceEncoder, folder: Path) -> list[str]:
    """Copy a pack, with the edited network in the place of its original.

    Other files keep every bit, but for the digest that a manifest states of the edited network. Other recognisers of
    the pack are left out: insightface ignores them until the edited file is gone, and then takes them in its place.

    Args:
        pack: the folder of the original.
        edited: the edited network, under the original's name.
        folder: an empty folder.

    Returns:
        The names of files that were left out.

    Raises:
        ModelError: insightface would not take the edited file.
    """
    left_out = [path.name for path in recognisers_in(pack) if path.name != edited.file]
    for path in sorted(pack.iterdir()):
        if path.is_file() and path.name not in {edited.file, *left_out}:
            shutil.copyfile(path, folder / path.name)
    write_bytes(folder / edited.file, edited.content)
    if (folder / MANIFEST).is_file():
        _state_digest(folder / MANIFEST, edited.file)
    if recogniser_in(folder).name != edited.file:
        raise ModelError(
            f"insightface would take {recogniser_in(folder).name} of the exported pack", "Report this as a bug of ireu"
        )
    return left_out


def _state_digest(manifest: Path, file: str) -> None:
    """Insightface 2 refuses a network whose digest is not the one that its manifest states."""
    told: dict[str, Any] = json.loads(manifest.read_text())
    tasks = told.get("tasks")
    entries = [task for task in tasks.values() if isinstance(task, dict)] if isinstance(tasks, dict) else []
    for task in entries:
        if task.get("file") == file and "sha256" in task:
            task["sha256"] = file_sha256(manifest.with_name(file))
            write_bytes(manifest, (json.dumps(told, indent=2) + "\n").encode())
