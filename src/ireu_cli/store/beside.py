"""Records of artifacts, looked for beside or inside what a user names."""

from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import MOST_BYTES, Manifest, parse_manifest
from ireu_cli.store.artifacts import EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME, manifest_path
from ireu_cli.store.files import native_name
from ireu_cli.support.bounded import ContentError, read_bounded


def _place_of(source: Path) -> Path | None:
    """The record beside or inside an artifact of ireu, or the path itself if it is a record; None if there is none."""
    if source.is_dir():
        names = (EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME)
        return next((source / name for name in names if (source / name).is_file() and _is_ours(source / name)), None)
    if not source.is_file():
        return None
    places = (manifest_path(source), source.with_name(EXPORT_MANIFEST_NAME), source)
    return next((path for path in places if path.suffix == ".json" and path.is_file() and _is_ours(path)), None)


def record_of(source: Path) -> tuple[Path, Manifest] | None:
    """The record of an artifact and what it says; None if ireu did not write the artifact.

    Raises:
        ArtifactError: the record is damaged, or was changed.
    """
    path = _place_of(source)
    if path is None:
        return None
    manifest = parse_manifest(_read(path), path.name)
    # A single file beside the record of an export may belong to anything.
    if source.is_file() and path.name == EXPORT_MANIFEST_NAME and source != path and not _lists(manifest, source):
        return None
    return path, manifest


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


def _lists(manifest: Manifest, source: Path) -> bool:
    return any(Path(native_name(record.name)).name == source.name for record in manifest.outputs)
