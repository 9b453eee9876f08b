"""Where a step writes: whose files are there, what a killed run left, and how a result takes its place.

Nothing but what ireu wrote is ever replaced or removed. A file or a folder is ireu's if the manifest beside it or in it
is sealed, and every byte is the recorded one; a file that was changed since counts as somebody's own.
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
from ireu_cli.store.artifacts import EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME, manifest_path
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
from ireu_cli.store.system import is_mount_point, sync_folder
from ireu_cli.support.stamps import stamp_of

State = Mapping[Path, tuple[int, ...]]
"""What the file system says of each file of an output, to see whether somebody changed it since."""
_FOLDERS = MappingProxyType({"verify": REPORT_MANIFEST_NAME, "export": EXPORT_MANIFEST_NAME})
_ELSEWHERE = "Choose another place with --out"
_OWN = f"{_ELSEWHERE}, or move it away: ireu replaces only what it wrote itself"


def record_of(step: Step, output: Path) -> Path:
    """Where the manifest of what a step writes lies: in the folder, or beside the file."""
    return output / _FOLDERS[step] if step in _FOLDERS else manifest_path(output)


def refuse_place(record: Path, output: Path) -> None:
    """Refuse a place where nothing can be written in the end; asked before the work begins, nothing is made.

    Raises:
        ArtifactError: a link, a pipe, a device, a folder for a file or a file for a folder, a mounted file, a folder
            in which this user must not write.
    """
    is_folder = record.parent == output
    with disk_errors(output):
        for path in {output, record}:
            if path.is_symlink():
                raise ArtifactError(f"{path} is a link, and no link is replaced", "Name the place that it leads to")
        if output.exists():
            _refuse_kind(output, is_folder)
        if not is_folder:
            for path in (output, record):
                if path.exists() and is_mount_point(path):
                    raise ArtifactError(
                        f"{path} is a mount point, and cannot be replaced",
                        "Mount the folder around it, and name a file in there with --out",
                    )
        _refuse_rights(output, is_folder)


def _refuse_kind(output: Path, is_folder: bool) -> None:
    kind = output.stat().st_mode
    if is_folder and stat.S_ISREG(kind):
        raise ArtifactError(f"{output} is a file, and a folder is to be written", "Name a folder with --out")
    if not is_folder and stat.S_ISDIR(kind):
        raise ArtifactError(f"{output} is a folder, and a file is to be written", "Name a file with --out")
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        what = "a folder" if is_folder else "a file"
        raise ArtifactError(f"{output} is a device, a pipe or a socket, and {what} is to be written", _ELSEWHERE)


def _refuse_rights(output: Path, is_folder: bool) -> None:
    needed = os.W_OK | os.X_OK
    if is_folder and output.exists():
        if not os.access(output, needed):
            raise ArtifactError(f"{output} must not be written to by this user", _ELSEWHERE)
        if is_mount_point(output):
            return
    around = output.absolute().parent
    while not around.exists():
        around = around.parent
    if not around.is_dir():
        raise ArtifactError(f"{around} is no folder, and {output.name} is to be written there", _ELSEWHERE)
    if not os.access(around, needed):
        raise ArtifactError(f"{around} must not be written to by this user, or is read-only", _ELSEWHERE)
    # In folders such as /tmp files are replaced by their owners only.
    owners = {around.stat().st_uid, output.stat().st_uid if output.exists() else os.geteuid()}
    if around.stat().st_mode & stat.S_ISVTX and os.geteuid() not in {0, *owners}:
        raise ArtifactError(f"{output} belongs to another user", _ELSEWHERE)


def found_at(record: Path, output: Path) -> Manifest | None:
    """The manifest of what lies at an output, every byte of which is ireu's; None where there is nothing.

    A manifest whose file is gone counts as nothing.

    Raises:
        ArtifactError: there is something that ireu did not write, or that was changed since.
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
            f"{output} holds {len(foreign)} files that ireu did not write, or that were changed since",
            "Choose another folder with --out, or move them away: ireu replaces only what it wrote itself",
        )
    return manifest


def _entries(folder: Path) -> list[Path]:
    """Files, folders and links in a folder, at any depth, but for our lock in a folder that is mounted."""
    return [path for path in sorted(folder.rglob("*")) if path != folder / LOCK_INSIDE]


def refuse_full_mount(output: Path) -> None:
    """Refuse to replace what lies in a folder that something is mounted on: that cannot be done in one step.

    Raises:
        ArtifactError: it is such a folder, and not empty.
    """
    if output.is_dir() and is_mount_point(output) and _entries(output):
        raise ArtifactError(
            f"{output} is a mount point, and what lies in it cannot be replaced in one step",
            "Empty it, or name a folder inside it with --out",
        )


def state_of(record: Path, output: Path) -> State:
    """What the file system says of an output at this moment."""
    paths = [output, record]
    if record.parent == output:
        inside = _entries(output) if output.exists() else []
        # A folder that something is mounted on holds what is being written, too.
        paths = [output, *(path for path in inside if not path.relative_to(output).parts[0].startswith(".ireu-"))]
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            told = path.lstat()
            stamp = stamp_of(told)
            # Size and times of a folder change with what is in it, which is looked at itself.
            found[path] = (stamp.device, stamp.inode) if stat.S_ISDIR(told.st_mode) else tuple(stamp)
    return found


def refuse_changed(record: Path, output: Path, seen: State) -> None:
    """Refuse to write where somebody else wrote since the work began.

    Raises:
        ArtifactError: somebody did; what they wrote stays.
    """
    if state_of(record, output) != seen:
        raise ArtifactError(f"{output} was changed by somebody else in the meantime", _OWN)


def write_artifact(
    output: Path, data: bytes | bytearray, manifest: Manifest, seen: State, seal: Callable[[str], str] | None = None
) -> Manifest:
    """Put a file and its manifest in their places; a run that is killed between the two is completed by the next.

    Args:
        output: the file.
        data: its content.
        manifest: what it says, but for its file.
        seen: the state of the place when the work began.
        seal: makes the keyed seal out of the digest; None leaves the manifest without one.

    Returns:
        The manifest as it is written.

    Raises:
        ArtifactError: the disk is full, or somebody wrote there in the meantime.
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
            # Interrupted between the two: the file has no other manifest.
            if not file.exists() and text.exists():
                text.replace(record)
        sync_folder(output.absolute().parent)
    return sealed


def write_artifact_folder(
    record: Path, output: Path, fill: Callable[[Path], Manifest], seen: State, shared: bool
) -> Manifest:
    """Put a folder in its place.

    Args:
        record: where the manifest lies in the end.
        output: the folder.
        fill: writes the content into the folder it is given, and gives the manifest in it.
        seen: the state of the place when the work began.
        shared: others may read it, as far as the user's umask allows.

    Raises:
        ArtifactError: the disk is full, or somebody wrote there in the meantime.
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
    """Bring to its end what killed runs began at an output, and drop what else they left; the lock is held.

    Raises:
        ArtifactError: something is in the way.
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
    """Whether a manifest that did not get to its place is that of what lies at the output."""
    try:
        manifest = parse_manifest(read_bytes(text, "The manifest", _OWN, MOST_BYTES), text.name)
        check_record(manifest.outputs[0], output.parent)
    except (ArtifactError, OSError, IndexError):
        return False
    return manifest.state == "complete" and native_name(manifest.outputs[0].name) == output.name


def _recover_previous(record: Path, output: Path) -> None:
    """What earlier versions called a folder that they were replacing."""
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
