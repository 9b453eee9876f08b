"""What a server needs beside an export, written without asking it: digests, and a version of a repository."""

from pathlib import Path

from ireu_cli.errors import UserError
from ireu_cli.manifest import canonical_json
from ireu_cli.serving.exported import open_exported
from ireu_cli.serving.triton import add_version
from ireu_cli.store.files import write_bytes
from ireu_cli.values import DTYPES


def write_digests(place: Path, out: Path, dtype: str | None) -> None:
    """Write the digests that an export has in a process's memory, as JSON; an older file of that name is replaced.

    `module_sha256` is what SGLang-Diffusion answers to `get_weights_checksum`, and `expected_named_tensors_sha256` is
    what its `update_weights_from_tensor_checker` asks for.

    Args:
        place: the export.
        out: the file.
        dtype: the precision in which it is served; None: as it is stored.

    Raises:
        UserError: the dtype is none.
        ArtifactError: it is no export, or is not as recorded, or holds no weights in safetensors.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"{dtype} is no precision", f"Use {', '.join(DTYPES)}")
    weights = open_exported(place).weights
    write_bytes(out, (canonical_json(weights.expected(dtype)) + "\n").encode())


def write_version(place: Path, repository: Path, model: str) -> Path:
    """Write an export as the newest version of a model, for a server to be started or told to load it later.

    Returns:
        The version's folder; the newest one that is there already, if it holds the export.

    Raises:
        UserError: the repository is no folder.
        ArtifactError: it is no export of a network, or is not as recorded, or the folder cannot be written.
    """
    if not repository.is_dir():
        raise UserError(f"The repository {repository} is no folder", "Name the server's model repository")
    return add_version(open_exported(place), repository, model)
