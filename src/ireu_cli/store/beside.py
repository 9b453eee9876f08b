"""Records of artifacts, looked for beside or inside what a user names."""

import os
from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import MOST_BYTES, FileRecord, Manifest, parse_manifest
from ireu_cli.store.files import file_sha256, native_name, place_of
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME, manifest_path
from ireu_cli.support.bounded import ContentError, read_bounded

_OF_FOLDERS = (EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME)
"""The names of the records of folders, which lie inside."""
NOUNS = {"locate": "mask", "unlearn": "delta", "verify": "report", "export": "export", "apply": "embeddings"}
"""What a step writes."""
AS_RECORDED = "as recorded"
"""What `state_of` says of a file that has the recorded bytes."""


def state_of(record: FileRecord, folder: Path) -> str:
    """Whether a recorded file is as recorded, in words: else missing, changed since, or cannot be read."""
    try:
        path = place_of(record, folder)
        if not path.is_file():
            return "missing"
        same = path.stat().st_size == record.size and file_sha256(path) == record.sha256
    except (ArtifactError, OSError):
        return "cannot be read"
    return AS_RECORDED if same else "changed since"


def _place_of(source: Path) -> Path | None:
    """The record beside or inside an artifact of ireu, or the path itself if it is a record; None if there is none."""
    if source.is_dir():
        inside = [source / name for name in _OF_FOLDERS]
        return next((path for path in inside if path.is_file() and _is_ours(path)), None)
    if not source.is_file():
        return None
    places = (manifest_path(source), *(source.with_name(name) for name in _OF_FOLDERS), source)
    return next((path for path in places if path.suffix == ".json" and path.is_file() and _is_ours(path)), None)


def record_of(source: Path) -> tuple[Path, Manifest] | None:
    """The record of an artifact and what it says; None if ireu did not write the artifact.

    A record beside a file is the file's only if it lists that very file: any other may have been put there.

    Raises:
        ArtifactError: the record is damaged, or was changed.
    """
    path = _place_of(source)
    if path is None:
        return None
    manifest = parse_manifest(_read(path), path.name)
    if (
        source.is_file()
        and source != path
        and not any(is_of(record, path.parent, source) for record in manifest.outputs)
    ):
        return None
    return path, manifest


def is_of(record: FileRecord, folder: Path, path: Path) -> bool:
    """Whether an entry of a record, which lies in a folder, is of the file at a path."""
    return Path(os.path.normpath(folder / native_name(record.name))) == Path(os.path.normpath(path))


def _is_ours(path: Path) -> bool:
    """Whether a JSON file begins like the records of ireu; packs of insightface have other files of that name."""
    try:
        head = _read(path)
    except (ContentError, OSError):
        return False
    return b'"schema_version"' in head and b'"step"' in head and b'"checksum"' in head


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, MOST_BYTES)
    except OSError as error:
        raise ArtifactError(f"The record {path} cannot be read ({error.strerror})", "Check its permissions") from None
