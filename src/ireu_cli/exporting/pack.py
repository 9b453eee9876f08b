"""Export an insightface pack with one edited network, so that insightface loads that file and no other."""

import json
import shutil
from pathlib import Path
from typing import Any

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.face_pack import MANIFEST, named_files, networks_in, recogniser_in, recognisers_in
from ireu_cli.encoders.files.networks import external_files, session_error
from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.errors import ConfigError, IreuError, ModelError
from ireu_cli.exporting.model_card import CARD, LICENCES
from ireu_cli.store.files import file_sha256, write_bytes
from ireu_cli.support.bounded import leads_inside, printable, read_json

_TEXTS = (MANIFEST, CARD, *LICENCES)
"""Files that are copied with the networks of a pack; other files in the folder do not belong to the pack."""


def pack_of(source: Path, network: Path) -> Path:
    """The pack that a network belongs to.

    Args:
        source: what you named: the pack, or the network.
        network: the network.

    Raises:
        ConfigError: insightface uses another file of that folder for recognition.
        ModelError: the folder is no pack.
    """
    pack = source if source.is_dir() else network.parent
    taken = recogniser_in(pack)
    if taken != pack / network.relative_to(pack):
        raise ConfigError(
            f"insightface uses {taken.name} of this pack for recognition, and not {network.name}",
            f"Remove {taken.name} if it is a copy; otherwise edit {taken.name}",
        )
    return pack


def write_pack(pack: Path, network: Path, edited: ImageEncoder, folder: Path) -> list[str]:
    """Copy the networks of a pack, its manifest and its licence; the edited network replaces its original.

    Other files keep every bit; only the digest of the edited network changes in a manifest. Recognisers that no
    manifest names are left out: insightface ignores them as long as the edited file is there, and uses one of them once
    it is gone.

    Args:
        pack: the folder of the original.
        network: the original, inside the pack.
        edited: the edited network.
        folder: an empty folder.

    Returns:
        The names of files that were left out.

    Raises:
        ModelError: insightface would not use the edited file.
    """
    own, named = network.relative_to(pack), named_files(pack)
    recognisers = recognisers_in(pack) if named is None else []
    left_out = [path.name for path in recognisers if path != network]
    networks = named.values() if named is not None else (path for path in networks_in(pack) if path not in recognisers)
    # The edited network holds its own weights; others keep theirs where they had them.
    others = {*networks} - {network}
    beside = {file for path in others for file in external_files(path)}
    for path in {*others, *beside, *(text for pattern in _TEXTS for text in pack.glob(pattern))} - {network}:
        _copy(path, pack, folder)
    (content,) = edited.whole_files().values()
    write_bytes(folder / own, content)
    if named is not None:
        _state_digest(folder / MANIFEST, own.as_posix())
    if recogniser_in(folder) != folder / own:
        raise ModelError(
            f"insightface would use {recogniser_in(folder).name} of the exported pack", "Report this as a bug of ireu"
        )
    for path in sorted(folder.rglob("*.onnx")):
        _try(path)
    return left_out


def _copy(path: Path, pack: Path, folder: Path) -> None:
    """Copy a file of the pack. You may publish an export, so no file from elsewhere enters it.

    Raises:
        ModelError: it is a link that leads out of the pack.
    """
    if not leads_inside(pack, path):
        raise ModelError(
            f"{printable(path.name)} is a link that leads out of the pack {pack}",
            "Put a copy there instead of the link",
        )
    place = folder / path.relative_to(pack)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)


def _try(path: Path) -> None:
    """Open a network as insightface does."""
    try:
        open_session(path, "cpu")
    except (IreuError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base of their own
        raise ModelError(
            f"The network {path.name} of the pack cannot be loaded ({session_error(error)[0]})", "Repair the pack"
        ) from None


def _state_digest(manifest: Path, file: str) -> None:
    """Put the new digest into the manifest: insightface 2 refuses a network whose digest differs from it."""
    told: dict[str, Any] = read_json(manifest, repeats=True)
    stated = [task for task in told["tasks"].values() if task["file"] == file and "sha256" in task]
    for task in stated:
        task["sha256"] = file_sha256(manifest.parent / file)
    if stated:
        write_bytes(manifest, (json.dumps(told, indent=2) + "\n").encode())
