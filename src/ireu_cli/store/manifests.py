"""Manifests beside artifacts: what they are called, and how they are read and written. Nothing here loads torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ireu_cli.manifest import MOST_BYTES, Manifest, completed, parse_manifest
from ireu_cli.store.files import check_record, file_record, read_bytes, write_bytes

REPORT_NAME = "report.json"
REPORT_MANIFEST_NAME = "manifest.json"
EXPORT_MANIFEST_NAME = "ireu.json"
GRIDS, IMAGES = "pictures", "images"
"""The folders in a report, for grids and for all pictures with their index."""


def manifest_path(artifact: Path) -> Path:
    """The path of a single-file artifact's manifest: `mask.pt` has `mask.pt.json`."""
    return artifact.with_name(artifact.name + ".json")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, and check that it is consistent and that its outputs match it.

    Raises:
        ArtifactError: it is missing or damaged, or an output's bytes differ from the recorded ones.
    """
    remedy = "Run the step that writes it again, to its end; an interrupted run leaves no manifest"
    manifest = parse_manifest(read_bytes(path, "The manifest", remedy, MOST_BYTES), path.name)
    for record in manifest.outputs:
        check_record(record, path.parent)
    return manifest


def write_manifest(
    path: Path,
    manifest: Manifest,
    outputs: list[Path],
    known: Mapping[Path, str] = MappingProxyType({}),
    seal: Callable[[str], str] | None = None,
) -> Manifest:
    """Seal and write the manifest last, after the files that it describes.

    Args:
        path: the file to write.
        manifest: its content, except for its files.
        outputs: the files.
        known: SHA-256 of files that were already read.
        seal: makes the keyed seal from the digest; None leaves the manifest unsealed.
    """
    records = tuple(file_record(output, path.parent, known.get(output)) for output in outputs)
    sealed = completed(manifest, records, seal)
    write_bytes(path, sealed.text().encode())
    return sealed
