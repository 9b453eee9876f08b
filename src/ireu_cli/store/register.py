"""The register: an append-only file of what was done for which case, in which every entry names the one before it.

Each line is one entry as canonical JSON. `previous` is the digest of the entry before it, and `seal` is the digest of
the entry keyed with the run folder's key that `key` names. A second file, which ends in `.head`, says how many entries
there are, and is sealed too, so that a shortened register is noticed. What nobody can notice is an older copy of both
files in their place. The register holds no photo, no embedding, no path and no digest of a photo.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import canonical_json, digest_of
from ireu_cli.store.files import disk_errors, write_bytes
from ireu_cli.store.locks import Note, waited
from ireu_cli.support.bounded import ContentError, read_bounded, read_json

FIRST = "0" * 64
"""What the first entry names as the one before it."""
_ASKED = frozenset({"request", "withdrawal"})
_LARGEST = 1 << 30
"""The most bytes of a register that is read."""
_BEGINNING = b'{"artifact":"'
"""What every entry begins with, so that a torn first one is told from somebody else's file."""
MOST_LINE = 1 << 24
"""The most bytes of one entry."""
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Case = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
What = Literal["request", "withdrawal", "verification", "export", "check", "deployment", "deletion"]


class Event(BaseModel):
    """What was done: for which cases, by which artifact, and with which result.

    `artifact` is the digest of the manifest that was written, `parent` that of the manifest it was made from. `encoder`
    is the fingerprint of the original, `edited` that of the exported encoder. `place` tells services apart.
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
    place: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None


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
        return digest_of(self._plain({"digest", "seal"}))

    def line(self) -> bytes:
        """The entry as one line."""
        return (canonical_json(self._plain()) + "\n").encode()

    def _plain(self, without: Iterable[str] = ()) -> dict[str, object]:
        # Entries of earlier versions have no place, and keep their digest.
        return self.model_dump(mode="json", exclude={*without, *(["place"] if self.place is None else [])})


@dataclass(frozen=True)
class Key:
    """The key of a run folder: its name, and what makes a seal from a digest."""

    name: str
    seal: Callable[[str], str]


class Head(BaseModel):
    """How many entries a register has, the digest of the last one, and a seal over both by the key of the last one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=1)
    digest: Hash
    key: str | None = Field(None, pattern=r"^[0-9a-f]{16}$")
    seal: Hash | None = None

    @property
    def sealed(self) -> str:
        """What the seal is made of."""
        return digest_of([self.count, self.digest])


class Register:
    """A register on disk. Several processes may add to it at a time; each waits for the others."""

    def __init__(self, path: Path, key: Key | None, note: Note = lambda _text: None) -> None:
        """Args: the file, which is made when it is needed; the key for seals; and what takes messages."""
        self.path, self._key, self._note = path, key, note

    def add(self, event: Event) -> bool:
        """Add an event; True if it was added, False if it only repeats the last one of its kind (see `repeats`).

        The line is on the disk when this returns. If a process is killed before, the next one takes back what it left.

        Raises:
            ArtifactError: the register cannot be written, is no register, or its last entry is damaged.
        """
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with waited(self.path.with_name(f"{self.path.name}.lock"), self.path, self._note), disk_errors(self.path):
            descriptor = _opened(self.path)
            try:
                held = _whole(descriptor, self.path)
                last = _last(held, self.path)
                if repeats(held, event):
                    return False
                entry = self._entry(event, last)
                _append(descriptor, entry.line())
            finally:
                os.close(descriptor)
            write_bytes(_head(self.path), canonical_json(self._headed(entry).model_dump(mode="json")).encode())
        return True

    def _entry(self, event: Event, last: Entry | None) -> Entry:
        return Entry(
            **event.model_dump(),
            number=1 if last is None else last.number + 1,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            previous=FIRST if last is None else last.digest,
            key=None if self._key is None else self._key.name,
        ).chained(None if self._key is None else self._key.seal)

    def _headed(self, entry: Entry) -> Head:
        head = Head(count=entry.number, digest=entry.digest, key=entry.key)
        return head if self._key is None else head.model_copy(update={"seal": self._key.seal(head.sealed)})


@dataclass(frozen=True)
class Read:
    """The entries of a register, and what is wrong with its chain, by the number of the line.

    `sealed` counts the entries whose seal the given key confirms. All others may be anybody's.
    """

    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    sealed: int


def read_register(path: Path, key: Key | None = None) -> Read:
    """Read a register and verify its chain; entries behind a fault are read as far as they can be.

    Args:
        path: the file.
        key: a run folder's key, whose seals are verified too.

    Raises:
        ArtifactError: it does not exist or cannot be read.
    """
    if not path.is_file():
        raise ArtifactError(f"The register {path} is no regular file", "Name the file with --register")
    # First: whoever adds an entry meanwhile writes the line before the count.
    head = _read_head(path)
    try:
        held = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"The register {path} cannot be read ({error.strerror})", "Check its permissions") from None
    entries: list[Entry] = []
    faults: list[str] = []
    previous, sealed = FIRST, 0
    # What lies behind the last end of a line is just being written.
    for number, line in enumerate(held[: held.rfind(b"\n") + 1].splitlines(keepends=True), 1):
        entry = _parsed(line)
        if entry is None:
            faults.append(f"line {number} is no entry")
            continue
        faults += [f"line {number} {fault}" for fault in _faults(entry, len(entries) + 1, previous, key)]
        sealed += key is not None and entry.key == key.name and entry.seal == key.seal(entry.digest)
        entries.append(entry)
        previous = entry.digest
    return Read(tuple(entries), (*faults, *_shortened(head, entries, key)), sealed)


def repeats(held: bytes, event: Event) -> bool:
    """Whether an event says what the last entry of its kind says already: a step that was done is run again.

    The kind of requests and withdrawals is their case and encoder, that of exports their encoder, and that of
    verifications the delta. Nothing else repeats.
    """
    needles = {"verification": _text(event.parent or ""), "export": b'"what":"export"'}
    asks = event.what in _ASKED
    if not asks and event.what not in needles:
        return False
    needle = _text(event.cases[0]) if asks and event.cases else needles.get(event.what, b"")
    for entry in _lines_with(held, needle):
        is_rival = entry.what in _ASKED if asks else entry.what == event.what
        same_case = not asks or set(event.cases) & set(entry.cases)
        same_delta = event.what != "verification" or event.parent == entry.parent
        if is_rival and entry.encoder == event.encoder and same_case and same_delta:
            return (entry.what, entry.artifact, entry.cases) == (event.what, event.artifact, event.cases)
    return False


def _text(value: str) -> bytes:
    return canonical_json(value).encode()


def _lines_with(held: bytes, needle: bytes) -> Iterator[Entry]:
    """The entries whose line holds some text, the last one first."""
    end = len(held)
    while (at := held.rfind(needle, 0, end)) >= 0:
        start = held.rfind(b"\n", 0, at) + 1
        entry = _parsed(held[start : held.find(b"\n", at) + 1])
        if entry is not None:
            yield entry
        end = start


def _opened(path: Path) -> int:
    """Open the file, which may be nothing but a regular one; a new one is its owner's alone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise _no_register(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_register(path)
    return descriptor


def _whole(descriptor: int, path: Path) -> bytes:
    """Everything up to the last end of a line; what a killed process left behind it is cut off."""
    with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        held = file.read()
    end = held.rfind(b"\n") + 1
    begins = _parsed(held[: held.find(b"\n") + 1]) is not None if end else held.startswith(_BEGINNING[: len(held)])
    if not begins:
        raise _no_register(path)
    if end < len(held):
        os.truncate(descriptor, end)
    return held[:end]


def _append(descriptor: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _no_register(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is no register, and nothing is added to it", "Name another file as run.register_file")


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


def _read_head(path: Path) -> Head | None:
    place = _head(path)
    try:
        return Head.model_validate_json(read_bounded(place, 4096)) if place.is_file() else None
    except (OSError, ContentError, ValidationError):
        return None


def _shortened(head: Head | None, entries: Sequence[Entry], key: Key | None) -> Iterator[str]:
    if head is None:
        if entries:
            yield "the file that counts its entries is missing or damaged"
        return
    if head.count > len(entries):
        yield f"{head.count - len(entries)} entries are missing at its end"
    elif entries[head.count - 1].digest != head.digest:
        yield "the file that counts its entries is of another register"
    if key is not None and head.key == key.name and head.seal != key.seal(head.sealed):
        yield "the file that counts its entries is not sealed with the key that it names"


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
