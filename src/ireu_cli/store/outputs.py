"""Where a step writes: whose files are there, what a killed run left, and how a result is put in place.

Only what ireu wrote is ever replaced or removed. A file or a folder is ireu's if the manifest beside it or in it is
sealed, and every byte is the recorded one. A file that has changed since counts as the user's own.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import MOST_BYTES, FileRecord, Manifest, Step, completed, parse_manifest
from ireu_cli.store.files import (
    check_record,
    disk_errors,
    left_behind,
    move_in,
    native_name,
    portable_name,
    read_bytes,
    remove,
    staged,
    write_folder,
)
from ireu_cli.store.locks import LOCK_INSIDE
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME, manifest_path
from ireu_cli.store.system import is_mount_point, sync_folder
from ireu_cli.support.stamps import stamp_of

State = Mapping[Path, tuple[int, ...]]
"""What the file system says about each file of an output, to detect changes."""
_FOLDERS = MappingProxyType({"verify": REPORT_MANIFEST_NAME, "export": EXPORT_MANIFEST_NAME})
_ELSEWHERE = "Choose another place with --out"
_OWN = f"{_ELSEWHERE}, or move it away: ireu replaces only what it wrote itself"


def record_of(step: Step, output: Path) -> Path:
    """The path of an output's manifest: in the folder, or beside the file."""
    return output / _FOLDERS[step] if step in _FOLDERS else manifest_path(output)


def refuse_place(record: Path, output: Path) -> None:
    """Refuse an output path that cannot be written. The check runs before the work begins and makes nothing.

    Raises:
        ArtifactError: it is a link, a pipe, a device, a folder instead of a file or a file instead of a folder, a
            mounted file, or in a folder that this user may not write to.
    """
    is_folder = record.parent == output
    with disk_errors(output):
        for path in {output, record}:
            if path.is_symlink():
                raise ArtifactError(
                    f"{path} is a link, and ireu does not replace links", "Name the path that it leads to"
                )
        if output.exists():
            _refuse_kind(output, is_folder)
        if not is_folder:
            for path in (output, record):
                if path.exists() and is_mount_point(path):
                    raise ArtifactError(
                        f"{path} is a mount point and cannot be replaced",
                        "Mount the folder around it, and name a file in there with --out",
                    )
        _refuse_rights(output, is_folder)


def _refuse_kind(output: Path, is_folder: bool) -> None:
    kind = output.stat().st_mode
    if is_folder and stat.S_ISREG(kind):
        raise ArtifactError(f"{output} is a file, and the output has to be a folder", "Name a folder with --out")
    if not is_folder and stat.S_ISDIR(kind):
        raise ArtifactError(f"{output} is a folder, and the output has to be a file", "Name a file with --out")
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        what = "a folder" if is_folder else "a file"
        raise ArtifactError(f"{output} is a device, a pipe or a socket, and the output has to be {what}", _ELSEWHERE)


def _refuse_rights(output: Path, is_folder: bool) -> None:
    needed = os.W_OK | os.X_OK
    if is_folder and output.exists():
        if not os.access(output, needed):
            raise ArtifactError(f"This user may not write to {output}", _ELSEWHERE)
        if is_mount_point(output):
            return
    around = output.absolute().parent
    while not around.exists():
        around = around.parent
    if not around.is_dir():
        raise ArtifactError(f"{around} is not a folder, so {output.name} cannot be written there", _ELSEWHERE)
    if not os.access(around, needed):
        raise ArtifactError(f"This user may not write to {around}, or it is read-only", _ELSEWHERE)
    # In folders such as /tmp only the owners can replace files.
    owners = {around.stat().st_uid, output.stat().st_uid if output.exists() else os.geteuid()}
    if around.stat().st_mode & stat.S_ISVTX and os.geteuid() not in {0, *owners}:
        raise ArtifactError(f"{output} belongs to another user", _ELSEWHERE)


def found_at(record: Path, output: Path) -> Manifest | None:
    """The manifest of an existing output, every byte of which is ireu's; None if there is nothing.

    A manifest without its file counts as nothing.

    Raises:
        ArtifactError: there is something that ireu did not write or that has changed since.
    """
    return _folder_at(record, output) if record.parent == output else _file_at(record, output)


def _file_at(record: Path, output: Path) -> Manifest | None:
    if not record.exists():
        if output.exists():
            raise ArtifactError(f"{output} exists and has no manifest of ireu", _OWN)
        return None
    try:
        manifest = parse_manifest(read_bytes(record, "The manifest", _OWN, MOST_BYTES), record.name)
    except ArtifactError as error:
        raise ArtifactError(error.fact, _OWN) from None
    if [native_name(one.name) for one in manifest.outputs] != [output.name]:
        raise ArtifactError(f"{record} is not the manifest of {output.name}", _OWN)
    if not output.exists():
        return None
    try:
        check_record(manifest.outputs[0], output.parent)
    except ArtifactError as error:
        raise ArtifactError(error.fact, _OWN) from None
    return manifest


def _folder_at(record: Path, output: Path) -> Manifest | None:
    entries = _entries(output)
    if not entries:
        return None
    manifest, ours = None, {record}
    with contextlib.suppress(ArtifactError, OSError):
        manifest = parse_manifest(read_bytes(record, "The manifest", _OWN, MOST_BYTES), record.name)
    for one in () if manifest is None or record.is_symlink() else manifest.outputs:
        with contextlib.suppress(ArtifactError, OSError):
            check_record(one, output)
            ours.add(output / native_name(one.name))
    ours |= {folder for path in ours for folder in path.parents}
    foreign = [path for path in entries if manifest is None or path.is_symlink() or path not in ours]
    if foreign:
        raise ArtifactError(
            f"{output} holds {len(foreign)} files that ireu did not write or that have changed since",
            "Choose another folder with --out, or move them away: ireu replaces only what it wrote itself",
        )
    return manifest


def _entries(folder: Path) -> list[Path]:
    """Files, folders and links in a folder, at any depth, without our lock in a mount point."""
    return [path for path in sorted(folder.rglob("*")) if path != folder / LOCK_INSIDE]


def refuse_full_mount(output: Path) -> None:
    """Refuse to replace the content of a mount point, because that cannot be done in one step.

    Raises:
        ArtifactError: it is a mount point and not empty.
    """
    if output.is_dir() and is_mount_point(output) and _entries(output):
        raise ArtifactError(
            f"{output} is a mount point, and its content cannot be replaced in one step",
            "Empty it, or name a folder inside it with --out",
        )


def state_of(record: Path, output: Path) -> State:
    """What the file system says about an output at this moment."""
    paths = [output, record]
    if record.parent == output:
        inside = _entries(output) if output.exists() else []
        # A mount point also holds the files that are being written.
        paths = [output, *(path for path in inside if not path.relative_to(output).parts[0].startswith(".ireu-"))]
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            told = path.lstat()
            stamp = stamp_of(told)
            # A folder's size and times change with its content, which is checked separately.
            found[path] = (stamp.device, stamp.inode) if stat.S_ISDIR(told.st_mode) else tuple(stamp)
    return found


def refuse_changed(record: Path, output: Path, seen: State) -> None:
    """Refuse to write if somebody else has written there since the work began.

    Raises:
        ArtifactError: somebody has; their files stay.
    """
    if state_of(record, output) != seen:
        raise ArtifactError(f"Somebody else has changed {output} in the meantime", _OWN)


def write_artifact(
    output: Path, data: bytes | bytearray, manifest: Manifest, seen: State, seal: Callable[[str], str] | None = None
) -> Manifest:
    """Put a file and its manifest in place; if a run is killed between the two, the next run completes it.

    Args:
        output: the file.
        data: its content.
        manifest: its content, except for its file.
        seen: the state of the path when the work began.
        seal: makes the keyed seal from the digest; None leaves the manifest unsealed.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: the disk is full, or somebody has written there in the meantime.
    """
    record = manifest_path(output)
    named = FileRecord(name=portable_name(output.name), sha256=sha256(data).hexdigest(), size=len(data))
    sealed = completed(manifest, (named,), seal)
    with disk_errors(output), staged(output, data) as file, staged(record, sealed.text().encode()) as text:
        refuse_changed(record, output, seen)
        try:
            file.replace(output)
            text.replace(record)
        finally:
            # If the run is interrupted between the two, the file has no other manifest.
            if not file.exists() and text.exists():
                text.replace(record)
        sync_folder(output.absolute().parent)
    return sealed


def write_artifact_folder(
    record: Path, output: Path, fill: Callable[[Path], Manifest], seen: State, shared: bool
) -> Manifest:
    """Put a folder in place.

    Args:
        record: the final path of the manifest.
        output: the folder.
        fill: writes the content into the folder that it gets, and returns the manifest in it.
        seen: the state of the path when the work began.
        shared: other users may read it, as far as the umask allows.

    Raises:
        ArtifactError: the disk is full, or somebody has written there in the meantime.
    """
    manifests: list[Manifest] = []
    write_folder(
        output,
        lambda folder: manifests.append(fill(folder)),
        shared=shared,
        check=lambda: refuse_changed(record, output, seen),
    )
    return manifests[0]


def recover(record: Path, output: Path) -> None:
    """Complete what killed runs began at an output, and delete their other files; the caller holds the lock.

    Raises:
        ArtifactError: a file is in the way.
    """
    with disk_errors(output):
        for path in left_behind(output):
            if path.suffix == ".ready":
                move_in(path)
            elif path.suffix == ".previous" and not output.exists():
                path.rename(output)
            else:
                remove(path)
        if record.parent == output:
            _recover_previous(record, output)
            return
        for path in left_behind(record):
            if output.exists() and _describes(path, output):
                path.replace(record)
            else:
                remove(path)


def _describes(text: Path, output: Path) -> bool:
    """Whether a manifest that was not yet put in place belongs to the existing output."""
    try:
        manifest = parse_manifest(read_bytes(text, "The manifest", _OWN, MOST_BYTES), text.name)
        check_record(manifest.outputs[0], output.parent)
    except (ArtifactError, OSError, IndexError):
        return False
    return manifest.state == "complete" and native_name(manifest.outputs[0].name) == output.name


def _recover_previous(record: Path, output: Path) -> None:
    """The name that earlier versions gave to a folder that they were replacing."""
    previous = output.with_name(f".{output.name}.previous")
    if not previous.is_dir() or previous.is_symlink():
        return
    try:
        ours = found_at(previous / record.name, previous) is not None
    except ArtifactError:
        return
    if ours and output.exists():
        shutil.rmtree(previous, ignore_errors=True)
    elif ours:
        previous.rename(output)
