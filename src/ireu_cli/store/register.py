"""The register: an append-only file of what was done for which case, in which every entry names the one before it.

Each line is one entry as canonical JSON. `previous` is the digest of the entry before it, and `seal` is the digest of
the entry keyed with the run folder's key that `key` names. A second file, which ends in `.head`, says how many entries
there are, so that a shortened register is noticed. It holds no photo, no embedding, no path and no digest of a photo.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import canonical_json, digest_of
from ireu_cli.store.files import disk_errors, write_bytes
from ireu_cli.store.locks import Note, waited
from ireu_cli.support.bounded import ContentError, read_json

FIRST = "0" * 64
"""What the first entry names as the one before it."""
MOST_LINE = 1 << 24
"""The most bytes of one entry."""
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Case = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
What = Literal["request", "withdrawal", "verification", "export", "check", "deployment", "deletion"]


class Event(BaseModel):
    """What was done: for which cases, by which artifact, and with which result.

    `artifact` is the digest of the manifest that was written, `parent` that of the manifest it was made from. `encoder`
    is the fingerprint of the original, `edited` that of the exported encoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: What
    cases: tuple[Case, ...]
    artifact: Hash
    parent: Hash | None = None
    encoder: Hash | None = None
    edited: Hash | None = None
    outcome: Case | None = None
    request_date: Day | None = None
    photos_deleted_by: Day | None = None


class Entry(Event):
    """An event in its place: its number from 1, its time in UTC, and the digests that chain it."""

    number: int = Field(ge=1)
    at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    previous: Hash
    key: str | None = Field(None, pattern=r"^[0-9a-f]{16}$")
    digest: Hash = FIRST
    seal: Hash | None = None

    def chained(self, seal: Callable[[str], str] | None) -> Self:
        """The entry with its digest, and sealed if there is a key."""
        digest = self.own_digest()
        return self.model_copy(update={"digest": digest, "seal": None if seal is None else seal(digest)})

    def own_digest(self) -> str:
        """SHA-256 (hex) over everything but itself and the seal."""
        return digest_of(self.model_dump(mode="json", exclude={"digest", "seal"}))

    def line(self) -> bytes:
        """The entry as one line."""
        return (canonical_json(self.model_dump(mode="json")) + "\n").encode()


@dataclass(frozen=True)
class Key:
    """The key of a run folder: its name, and what makes a seal from a digest."""

    name: str
    seal: Callable[[str], str]


class Register:
    """A register on disk. Several processes may add to it at a time; each waits for the others."""

    def __init__(self, path: Path, key: Key | None, note: Note = lambda _text: None) -> None:
        """Args: the file, which is made when it is needed; the key for seals; and what takes messages."""
        self.path, self._key, self._note = path, key, note

    def add(self, event: Event) -> bool:
        """Add an event, unless one of its kind for the same artifact is there; True if it was added.

        The line is on the disk when this returns. If a process is killed before, the next one takes back what it left.

        Raises:
            ArtifactError: the register cannot be written, or its last entry is damaged.
        """
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with waited(self.path.with_name(f"{self.path.name}.lock"), self.path, self._note), disk_errors(self.path):
            held = self._whole()
            if _holds(held, event):
                return False
            last = _last(held, self.path)
            entry = Entry(
                **event.model_dump(),
                number=1 if last is None else last.number + 1,
                at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                previous=FIRST if last is None else last.digest,
                key=None if self._key is None else self._key.name,
            ).chained(None if self._key is None else self._key.seal)
            with self.path.open("ab") as file:
                file.write(entry.line())
                file.flush()
                os.fsync(file.fileno())
            write_bytes(_head(self.path), canonical_json({"count": entry.number, "digest": entry.digest}).encode())
        return True

    def _whole(self) -> bytes:
        """Everything up to the last end of a line; what a killed process left behind it is cut off."""
        if not self.path.exists():
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
            return b""
        held = self.path.read_bytes()
        end = held.rfind(b"\n") + 1
        if end < len(held):
            os.truncate(self.path, end)
        return held[:end]


@dataclass(frozen=True)
class Read:
    """The entries of a register, and what is wrong with its chain, by the number of the line; empty if nothing is."""

    entries: tuple[Entry, ...]
    faults: tuple[str, ...]


def read_register(path: Path, key: Key | None = None) -> Read:
    """Read a register and verify its chain; entries behind a fault are read as far as they can be.

    Args:
        path: the file.
        key: a run folder's key, whose seals are verified too.

    Raises:
        ArtifactError: it does not exist or cannot be read.
    """
    try:
        with path.open("rb") as file:
            lines = list(_lines(file))
    except OSError as error:
        raise ArtifactError(
            f"The register {path} cannot be read ({error.strerror})", "Name the file with --register"
        ) from None
    entries: list[Entry] = []
    faults: list[str] = []
    previous = FIRST
    for number, line in enumerate(lines, 1):
        entry = _parsed(line)
        if entry is None:
            faults.append(f"line {number} is no entry")
            continue
        faults += [f"line {number} {fault}" for fault in _faults(entry, len(entries) + 1, previous, key)]
        entries.append(entry)
        previous = entry.digest
    return Read(tuple(entries), (*faults, *_shortened(path, entries)))


def _lines(file: Iterator[bytes]) -> Iterator[bytes]:
    for line in file:
        # The last line may be one that somebody is just writing.
        if line.endswith(b"\n"):
            yield line


def _parsed(line: bytes) -> Entry | None:
    try:
        read_json(line, MOST_LINE)
        entry = Entry.model_validate_json(line)
    except (ContentError, ValidationError):
        return None
    # Only one text says the same.
    return entry if entry.line() == line else None


def _faults(entry: Entry, number: int, previous: str, key: Key | None) -> Iterator[str]:
    if entry.own_digest() != entry.digest:
        yield "was changed: its digest does not fit"
    elif key is not None and entry.key == key.name and entry.seal != key.seal(entry.digest):
        yield "is not sealed with the key that it names"
    if entry.previous != previous:
        yield "does not follow the entry before it"
    elif entry.number != number:
        yield f"has the number {entry.number}, and entry {number} belongs there"


def _shortened(path: Path, entries: Sequence[Entry]) -> list[str]:
    try:
        head = json.loads(_head(path).read_bytes())
        count, digest = int(head["count"]), str(head["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ["the file that counts its entries is missing"] if entries else []
    if count > len(entries):
        return [f"{count - len(entries)} entries are missing at its end"]
    if entries and count and entries[count - 1].digest != digest:
        return ["the file that counts its entries is of another register"]
    return []


def _holds(held: bytes, event: Event) -> bool:
    """Whether an entry of the same kind for the same artifact is there; it is looked for as text."""
    artifact, what = f'"artifact":"{event.artifact}"'.encode(), f'"what":"{event.what}"'.encode()
    at = held.find(artifact)
    while at >= 0:
        end = held.find(b"\n", at)
        if what in held[held.rfind(b"\n", 0, at) + 1 : end]:
            return True
        at = held.find(artifact, end)
    return False


def _last(held: bytes, path: Path) -> Entry | None:
    if not held:
        return None
    line = held[held.rfind(b"\n", 0, len(held) - 1) + 1 :]
    entry = _parsed(line)
    if entry is None or entry.own_digest() != entry.digest:
        raise ArtifactError(
            f"The last entry of the register {path} is damaged", "Look at it with `ireu cases`, and restore a copy"
        )
    return entry


def _head(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")
