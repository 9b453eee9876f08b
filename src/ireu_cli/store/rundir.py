"""The private run folder: the key of the photo digests, paths of inputs, locks, running steps, checkpoints.

It holds face features and paths, so only its owner can read it, git ignores it, and it is never exported.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import safetensors
from torch import Tensor

from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import record_of
from ireu_cli.store.deployments import Deployments
from ireu_cli.store.files import disk_errors, make_private_folder, read_bytes, staged, sweep, write_bytes
from ireu_cli.store.locks import Note, beside, held
from ireu_cli.store.packing import packed
from ireu_cli.store.register import Key, Register
from ireu_cli.store.system import place_new
from ireu_cli.support.bounded import MOST_JSON, ContentError, read_json
from ireu_cli.support.paths import as_text

KEY = "key"
"""The file of a run folder's key."""
REGISTER = "register.jsonl"
"""The register in a run folder."""
_FIRST = frozenset({".gitignore"})
"""The files that are made in a run folder before its key."""


class RunDir:
    """One run folder. It is made when there is something to keep, so that an early failure leaves nothing behind."""

    def __init__(self, path: Path, note: Note = lambda _text: None) -> None:
        """Open the folder if it exists, and remove other users' permissions to look into it.

        Args:
            path: the folder.
            note: called with messages for the user.

        Raises:
            ArtifactError: the folder cannot be written, or is another user's and open to others.
        """
        self.path = path.absolute()
        self._given = path
        self._note = note
        self._works: dict[str, Path] = {}
        self._key: bytes | None = None
        if os.path.lexists(self.path):
            self._open()

    def _open(self) -> bytes:
        """Make the folder and its key if they do not exist; returns the key.

        Raises:
            ArtifactError: the folder cannot be made or written, or is another user's and open to others.
        """
        if self._key is None:
            try:
                make_private_folder(self.path)
                _make_private(self.path, self._given)
            except OSError as error:
                raise ArtifactError(
                    f"The run folder {self._given} cannot be used ({error.strerror})", "Choose another with --run-dir"
                ) from None
            self._make(".gitignore", b"*\n")
            self._key = self._read_or_make_key()
        return self._key

    @property
    def is_made(self) -> bool:
        """Whether the folder exists."""
        return self._key is not None

    def keyed_digest(self, sha256: str) -> str:
        """HMAC-SHA-256 (hex) of a photo's digest: stable in this run folder, and meaningless elsewhere."""
        return hmac.digest(self._open(), sha256.encode(), "sha256").hex()

    def keyed_bytes(self, digest: bytes) -> bytes:
        """As `keyed_digest`, of the bytes of a digest."""
        return hmac.digest(self._open(), digest.hex().encode(), "sha256")

    @property
    def key_name(self) -> str:
        """An identifier (16 hex) of this folder's key, which does not reveal it."""
        return hmac.new(self._open(), b"ireu key", hashlib.sha256).hexdigest()[:16]

    def seal(self, digest: str) -> str:
        """HMAC-SHA-256 (hex) of a manifest's digest: nobody can make another one without the key."""
        return self._sealed("manifest", digest)

    @property
    def entry_key(self) -> Key:
        """What seals entries of a register; its seals are none of manifests."""
        return Key(self.key_name, lambda digest: self._sealed("entry", digest))

    def _sealed(self, kind: str, digest: str) -> str:
        return hmac.new(self._open(), f"{kind} {digest}".encode(), hashlib.sha256).hexdigest()

    def register(self, path: Path | None) -> Register:
        """The register at a path, or the one in this folder, whose entries are sealed with this folder's key."""
        return Register(path or self.path / REGISTER, self.entry_key, self._note)

    def deployments(self, place: str) -> Deployments:
        """What was put into a place of a service from this folder."""
        self._open()
        return Deployments(self.path, place, self._note)

    def vouches(self, manifest: Manifest) -> bool:
        """Whether a run with this folder's key wrote the manifest exactly like this.

        Manifests of versions that did not seal them count if this folder remembers that run.
        """
        if manifest.seal is None:
            return (self.path / "locations" / f"{manifest.digest}.json").is_file()
        return hmac.compare_digest(manifest.seal, self.seal(manifest.digest))

    @property
    def features(self) -> Path:
        """The folder of cached features."""
        self._open()
        return self.path / "features"

    @property
    def pictures(self) -> Path:
        """The folder of drawn pictures."""
        self._open()
        return self.path / "pictures"

    @property
    def looks(self) -> Path:
        """The folder of grids to look at while a step is still drawing."""
        self._open()
        return self.path / "looks"

    @property
    def prints(self) -> Path:
        """The folder of results about files of weights."""
        self._open()
        return self.path / "prints"

    def shards(self, name: str) -> Path:
        """The folder in which processes share the work of a step; it may not exist."""
        return self.path / "shards" / name[:32]

    def digests(self, folder: Path) -> Path:
        """The file for digests of a folder's photos; its name does not reveal the folder."""
        name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()
        return self.path / "digests" / f"{self.keyed_digest(name)[:32]}.safetensors"

    def remember(self, digest: str, locations: dict[str, str]) -> None:
        """Store the paths of a manifest's inputs, for the steps that follow it."""
        self._open()
        # Write only ASCII: names of files may not be text.
        text = json.dumps(locations, sort_keys=True, separators=(",", ":"))
        write_bytes(self.path / "locations" / f"{digest}.json", text.encode("ascii"))

    def recall(self, digest: str) -> dict[str, str]:
        """The paths of a manifest's inputs; empty if this run folder has not seen it."""
        path = self.path / "locations" / f"{digest}.json"
        if not path.exists():
            return {}
        try:
            data = read_bytes(path, "The record", "Name the inputs with flags", MOST_JSON)
            found = read_json(data, surrogates=True)
            return {str(key): str(value) for key, value in found.items()}
        except (ContentError, AttributeError):
            raise ArtifactError(f"{path} is damaged", "Delete it and name the inputs with flags") from None

    def note_export(self, fingerprint: str) -> None:
        """Remember that an encoder with this fingerprint is an edited one."""
        self._open()
        write_bytes(self._exported(fingerprint), b"")

    def refuse_edited(self, source: str, fingerprint: str) -> None:
        """Refuse an encoder from which ireu has removed people already.

        A new edit would use it as an original. What finds and moves the people removed earlier does nothing for anybody
        else, so to a new edit it is room, or something to train away.

        Args:
            source: `encoder.source`; a record beside it may say that it is an export.
            fingerprint: the encoder's; this folder knows what was exported from it.

        Raises:
            ModelError: it is an edited encoder.
            ArtifactError: the record beside it is damaged.
        """
        _, record = record_of(Path(source)) or (None, None)
        edits = record is not None and record.step == "export" and record.encoder.fingerprint != fingerprint
        if edits or self._exported(fingerprint).is_file():
            raise ModelError(
                f"{source} is an export of ireu: people were removed from it, and a new edit could bring them back",
                "Name the original encoder, and add this request to the earlier ones with --onto",
            )

    def _exported(self, fingerprint: str) -> Path:
        return self.path / "exports" / fingerprint[:32]

    @contextlib.contextmanager
    def lock(self, output: Path) -> Iterator[None]:
        """Hold the right to write `output`; the system releases it when the process ends, however it ends.

        Raises:
            ArtifactError: another process holds it, with this run folder or with another.
        """
        self._open()
        path = self.path / "locks" / _digest(output)[:16]
        with disk_errors(path):
            make_private_folder(path.parent)
        # Earlier versions look at the first lock; the note about missing locks is about the second.
        with held(path, output, lambda _text: None), beside(output, self._note):
            yield

    def start(self, manifest: Manifest, output: Path) -> None:
        """Record that a step is running towards `output`; `finish` removes the record and its checkpoint."""
        sweep(self.path)
        record = manifest.model_copy(update={"state": "running"}).sealed()
        place = self._works[manifest.identity] = self._work_towards(manifest.identity, output)
        write_bytes(place / "manifest.json", record.text().encode())
        write_bytes(place / "output", os.fsencode(output.absolute()))

    def is_running(self, identity: str, output: Path) -> bool:
        """Whether a step with this identity was started towards `output` and did not finish."""
        place = self._works[identity] = self._work_towards(identity, output)
        return _leads_to(place, output)

    def finish(self, identity: str) -> None:
        """Delete what a running step kept."""
        shutil.rmtree(self.work(identity), ignore_errors=True)

    def work(self, identity: str) -> Path:
        """The folder of one running step. It depends on the output too, because two runs may differ only in that."""
        return self._works.get(identity, self.path / "running" / identity[:32])

    def _work_towards(self, identity: str, output: Path) -> Path:
        own = self.path / "running" / f"{identity[:32]}-{_digest(output)[:16]}"
        # Earlier versions had one folder for all outputs.
        earlier = self.path / "running" / identity[:32]
        if not own.exists() and _leads_to(earlier, output):
            with contextlib.suppress(FileNotFoundError):
                earlier.rename(own)
        return own

    def write_checkpoint(self, identity: str, tensors: dict[str, Tensor], state: dict[str, object]) -> None:
        """Replace the step's checkpoint; `state` travels in the file's header."""
        metadata = {"state": json.dumps(state)}
        write_bytes(self.work(identity) / "checkpoint.safetensors", packed(tensors, metadata))

    def read_checkpoint(self, identity: str) -> tuple[dict[str, Tensor], dict[str, object]] | None:
        """The step's last checkpoint, or None.

        Raises:
            ArtifactError: it is damaged.
        """
        path = self.work(identity) / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            with as_text(path) as opened, safetensors.safe_open(opened, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                return tensors, dict(read_json((file.metadata() or {})["state"].encode()))
        except (safetensors.SafetensorError, ContentError, KeyError, TypeError, ValueError, OSError):
            raise ArtifactError(f"The checkpoint {path} is damaged", "Delete it to start the step again") from None

    def _make(self, name: str, data: bytes) -> Path:
        """Make a file if it does not exist; if another process was faster, its file is used."""
        path = self.path / name
        if not path.exists():
            with disk_errors(path, "--run-dir"), staged(path, data) as fresh:
                place_new(fresh, path)
        return path

    def _read_or_make_key(self) -> bytes:
        path = self._make(KEY, secrets.token_hex(32).encode("ascii"))
        text = read_bytes(path, "The key", "Restore it from a copy").strip()
        if len(text) != 64:
            raise ArtifactError(f"The key {path} is damaged", "Restore it, or delete the run folder to start again")
        return bytes(text)


def _digest(output: Path) -> str:
    return hashlib.sha256(os.fsencode(output.absolute())).hexdigest()


def _leads_to(place: Path, output: Path) -> bool:
    path = place / "output"
    return path.is_file() and path.read_bytes() == os.fsencode(output.absolute())


def _make_private(folder: Path, named: Path) -> None:
    """Remove everybody's permissions except the owner's, for a folder that is empty or holds a key of ours.

    Raises:
        ArtifactError: it holds other files, whose readers must not lose access; or it is another user's.
    """
    found = folder.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        if not (folder / KEY).is_file() and any(path.name not in _FIRST for path in folder.iterdir()):
            raise ArtifactError(
                f"The run folder {named} is open to others and holds files that ireu did not write",
                "Name a folder of its own with --run-dir, such as one inside it",
            )
        try:
            folder.chmod(0o700)
        except OSError:
            # On some file systems permissions are fixed; then the owner is the user for whom it was mounted.
            if found.st_uid != os.geteuid():
                raise ArtifactError(
                    f"The run folder {named} belongs to another user, and others may look into it",
                    "Name a folder of your own with --run-dir, such as one inside it",
                ) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ArtifactError(
            f"The run folder {named} is read-only, or belongs to another user (number {found.st_uid})",
            "Name a folder of your own with --run-dir, or get permission to write there",
        )
