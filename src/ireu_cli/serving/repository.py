"""The folder of one model in Triton's repository: numbered versions, each of which appears as a whole."""

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.store.files import disk_errors, file_sha256, write_folder
from ireu_cli.store.locks import waited
from ireu_cli.support.bounded import ContentError, read_bounded

_LAST = (1 << 63) - 1
"""The largest number of a version."""
_MARK = ".ireu"
"""An empty file in the versions that ireu wrote, which it may take back."""
_HALF = ".ireu-half-"
"""How folders begin that are being written or removed."""


@dataclass(frozen=True)
class Repository:
    """The folder of one model in a repository, as it lies here."""

    folder: Path

    def versions(self) -> list[int]:
        """The numbers of the versions, the newest first; Triton overlooks folders with other names."""
        if not self.folder.is_dir():
            return []
        names = (entry.name for entry in self.folder.iterdir() if entry.is_dir())
        return sorted((int(name) for name in names if is_version(name)), reverse=True)

    @property
    def newest(self) -> int:
        """The largest number of a version; 0 if there is none."""
        return max(self.versions(), default=0)

    def with_digest(self, digest: str, name: str) -> int | None:
        """The newest version that has a network; None if none has."""
        return next((version for version in self.versions() if self.digest(version, name) == digest), None)

    def digest(self, version: int, name: str) -> str | None:
        """SHA-256 (hex) of a version's network; None if it has none."""
        file = self.folder / str(version) / name
        try:
            return file_sha256(file) if file.is_file() else None
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error.strerror})", "Check its permissions") from None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from adding versions meanwhile."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with waited(self.folder / ".ireu.lock", self.folder, lambda _text: None):
            for half in self.folder.glob(f"{_HALF}*"):
                shutil.rmtree(half, ignore_errors=True)
            yield

    def ensure(self, network: Path, digest: str, name: str, above: int = 0) -> int:
        """The newest version, if it has a network and no larger number is taken, and else a new one; see `add`."""
        newest = self.newest
        if 0 < newest >= above and self.digest(newest, name) == digest:
            return newest
        return self.add(network, digest, name, above)

    def add(self, network: Path, digest: str, name: str, above: int = 0) -> int:
        """Write a new version, which appears as a whole; the caller holds `alone`.

        Args:
            network: the file.
            digest: its SHA-256 (hex).
            name: what it is to be called.
            above: the largest number that must not be taken any more.

        Raises:
            ArtifactError: the folder cannot be written, the copy is not what was read, or there is no number left.
        """

        def fill(folder: Path) -> None:
            shutil.copyfile(network, folder / name)
            (folder / _MARK).write_bytes(b"")
            if file_sha256(folder / name) != digest:
                raise ArtifactError(f"{network} changed while it was copied", "Repeat the command")

        half = self.folder / f"{_HALF}{secrets.token_hex(8)}"
        write_folder(half, fill, shared=True)
        version = max(above, self.newest)
        with disk_errors(self.folder):
            # A folder that somebody else wrote meanwhile is never replaced: this fails where one is.
            while version < _LAST:
                version += 1
                try:
                    half.rename(self.folder / str(version))
                except OSError as error:
                    if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                        raise
                else:
                    return version
        raise ArtifactError(f"{self.folder} has no number left for a new version", "Begin a new model")

    def remove(self, version: int) -> bool:
        """Take back a version that ireu wrote and that the server refused; False if somebody else wrote it."""
        place = self.folder / str(version)
        if not (place / _MARK).is_file():
            return False
        half = self.folder / f"{_HALF}{secrets.token_hex(8)}"
        try:
            place.rename(half)
        except OSError:
            return False
        shutil.rmtree(half, ignore_errors=True)
        return True


def refuse_unusual(repository: Repository) -> None:
    """Refuse a model whose own configuration names files or versions, if no server reads it for us.

    Raises:
        ArtifactError: it does, or it cannot be read.
    """
    file = repository.folder / "config.pbtxt"
    try:
        text = read_bounded(file, 1 << 20).decode(errors="replace") if file.exists() else ""
    except (OSError, ContentError):
        raise ArtifactError(f"{file} cannot be read", "Load the model first") from None
    if any(word in text for word in ("default_model_filename", "cc_model_filenames", "version_policy")):
        raise ArtifactError(
            f"{file} names files or versions, and no version is loaded",
            "Load the model first, so that the server can be asked what that means",
        )


def is_version(name: str) -> bool:
    """Whether Triton takes a name for a version: a whole number of 64 bits without zeros in front."""
    good = name.isascii() and name.isdecimal() and (name == "0" or not name.startswith("0")) and len(name) < 20
    return good and int(name) <= _LAST
