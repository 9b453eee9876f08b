"""The private run folder: the key of the photo digests, where inputs lie, locks, running steps, checkpoints.

It holds face features and paths, so it is readable by its owner only, ignored by git, and never exported.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ireu_cli.bounded import ContentError, read_json
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, canonical_json
from ireu_cli.store.files import read_bytes, write_bytes


class RunDir:
    """One run folder. Made on first use."""

    def __init__(self, path: Path) -> None:
        """Create the folder and its key if they are not there.

        Raises:
            ArtifactError: the folder cannot be made.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ArtifactError(
                f"The run folder {path} cannot be made ({error.strerror})", "Choose another with --run-dir"
            ) from None
        if not (self.path / ".gitignore").exists():
            write_bytes(self.path / ".gitignore", b"*\n")
        self._key = self._read_or_make_key()

    def keyed_digest(self, sha256: str) -> str:
        """HMAC-SHA-256 (hex) of a photo's digest: stable in this run folder, meaningless to anyone else."""
        return hmac.new(self._key, sha256.encode(), hashlib.sha256).hexdigest()

    @property
    def key_name(self) -> str:
        """Tells this folder's key from others (16 hex) without revealing it."""
        return hmac.new(self._key, b"ireu key", hashlib.sha256).hexdigest()[:16]

    @property
    def features(self) -> Path:
        """The folder of cached features."""
        return self.path / "features"

    @property
    def pictures(self) -> Path:
        """The folder of drawn pictures."""
        return self.path / "pictures"

    @property
    def prints(self) -> Path:
        """The folder of what is known of files of weights."""
        return self.path / "prints"

    def remember(self, digest: str, locations: dict[str, str]) -> None:
        """Note where the inputs of a manifest lie, for the steps that follow it."""
        write_bytes(self.path / "locations" / f"{digest}.json", canonical_json(locations).encode())

    def recall(self, digest: str) -> dict[str, str]:
        """Where the inputs of a manifest lie; empty when this run folder did not see it."""
        path = self.path / "locations" / f"{digest}.json"
        if not path.exists():
            return {}
        try:
            data = read_bytes(path, "The record", "Name the inputs with flags")
            found = read_json(data, surrogates=True)
            return {str(key): str(value) for key, value in found.items()}
        except (ContentError, AttributeError):
            raise ArtifactError(f"{path} is damaged", "Delete it and name the inputs with flags") from None

    @contextlib.contextmanager
    def lock(self, output: Path) -> Iterator[None]:
        """Hold the right to write `output`; the system drops it when the process ends, however it ends.

        Raises:
            ArtifactError: another process holds it.
        """
        name = hashlib.sha256(str(output.absolute()).encode()).hexdigest()[:16]
        path = self.path / "locks" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ArtifactError(f"Another ireu process is writing {output}", "Wait for it, or stop it") from None
            yield

    def start(self, manifest: Manifest, output: Path) -> None:
        """Record that a step is running towards `output`; `finish` removes the record and its checkpoint."""
        record = manifest.model_copy(update={"state": "running"}).sealed()
        write_bytes(self.work(manifest.identity) / "manifest.json", record.text().encode())
        write_bytes(self.work(manifest.identity) / "output", str(output.absolute()).encode())

    def is_running(self, identity: str, output: Path) -> bool:
        """Whether a step with this identity was started towards `output` and did not finish."""
        path = self.work(identity) / "output"
        return path.exists() and path.read_bytes() == str(output.absolute()).encode()

    def finish(self, identity: str) -> None:
        """Drop what a running step kept."""
        shutil.rmtree(self.work(identity), ignore_errors=True)

    def work(self, identity: str) -> Path:
        """The folder of one running step."""
        return self.path / "running" / identity[:32]

    def write_checkpoint(self, identity: str, tensors: dict[str, Tensor], state: dict[str, object]) -> None:
        """Replace the step's checkpoint; `state` travels in the file's header."""
        metadata = {"state": json.dumps(state)}
        write_bytes(self.work(identity) / "checkpoint.safetensors", safetensors.torch.save(tensors, metadata=metadata))

    def read_checkpoint(self, identity: str) -> tuple[dict[str, Tensor], dict[str, object]] | None:
        """The step's last checkpoint, or None.

        Raises:
            ArtifactError: it is damaged.
        """
        path = self.work(identity) / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                return tensors, dict(json.loads((file.metadata() or {})["state"]))
        except (safetensors.SafetensorError, KeyError, ValueError, OSError):
            raise ArtifactError(f"The checkpoint {path} is damaged", "Delete it to begin the step again") from None

    def _read_or_make_key(self) -> bytes:
        path = self.path / "key"
        if not path.exists():
            fresh = self.path / f".key.{os.getpid()}.tmp"
            fresh.write_text(secrets.token_hex(32), encoding="ascii")
            fresh.chmod(0o600)
            # A hard link fails when another process was first; then its key is the one to use.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        text = read_bytes(path, "The key", "Restore it from a copy").strip()
        if len(text) != 64:
            raise ArtifactError(f"The key {path} is damaged", "Restore it, or delete the run folder to begin anew")
        return bytes(text)
