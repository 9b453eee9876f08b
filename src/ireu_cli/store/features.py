"""Encoded photos, cached by content: encoder, tap, reading of the photo, photo bytes.

A cache file holds one encoded batch, and its name is the digest of its bytes. It is checked before it is used; a
damaged or half-written file is a miss, never an error. What a file's header says, and whether the file was checked, is
noted with its stamp, so that an unchanged file is not read again for that.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ireu_cli.errors import ArtifactError
from ireu_cli.store.files import write_bytes
from ireu_cli.store.tensors import LONGEST_HEADER
from ireu_cli.support.bounded import ContentError, read_json
from ireu_cli.support.photo_table import DIGEST, keys_of
from ireu_cli.support.stamps import Stamp, is_settled, stamp_of

_INDEX = "checked.jsonl"
_GAP, _SPAN = 1 << 15, 1 << 22
"""The most bytes to read for nothing between two rows, and the most to read at once unless a row has more."""
_ROWS = 1 << 32
"""More rows than a batch has."""
_STALE = 64
"""Outdated notes are dropped when there are more of them than this number and a quarter of the valid ones."""


Keys = Sequence[str] | NDArray[np.uint8]
"""Keys of rows: texts, or those that are digests also as uint8 (n, 32)."""
_Id = bytes | str
"""A key in memory and in the index: the 32 bytes of a digest, or the text of another key."""
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class _Batch:
    """One cache file: the offset of its first row, the shape of a row, and the keys of its rows, in order."""

    path: Path
    start: int
    shape: tuple[int, ...]
    keys: tuple[_Id, ...]

    @cached_property
    def step(self) -> int:
        """The number of bytes of a row."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class _Note:
    """What is known of a cache file with this stamp; if it is checked, its bytes have the digest in its name."""

    batch: _Batch
    stamp: Stamp
    is_checked: bool
    is_old: bool = False
    """Whether the index has it in a form that takes long to read."""

    @property
    def fits(self) -> bool:
        """Whether the file is as long as its header says."""
        return self.batch.start + len(self.batch.keys) * self.batch.step == self.stamp.size

    def line(self) -> str:
        """The note as a line of the index."""
        batch = self.batch
        # Digests follow each other in one text, which takes a fraction of the time to read.
        keys = [_text(key) for key in batch.keys]
        told = "".join(keys) if all(isinstance(key, bytes) for key in batch.keys) else keys
        return json.dumps([batch.path.name, self.stamp, batch.start, batch.shape, told, self.is_checked]) + "\n"


class FeatureCache:
    """Features of one encoder at one tap, as rows of float32 tensors."""

    def __init__(self, folder: Path) -> None:
        """Open the cache; only headers are read, and those of files that were opened before are skipped."""
        self._folder = folder
        self._batches: list[_Batch] = []
        # Where the row of a key is: the place of its batch in `_batches` times `_ROWS`, plus its row. There may be very
        # many, and a tuple takes twice the memory.
        self._rows: dict[_Id, int] = {}
        self._checked: set[Path] = set()
        notes = list(_read_notes(folder))
        noted = {note.batch.path.name: note for note in notes}
        if any(note.is_old for note in notes) or len(notes) > len(noted) + max(_STALE, len(noted) // 4):
            write_bytes(folder / _INDEX, "".join(note.line() for note in noted.values()).encode(), durable=False)
        fresh = []
        for path, stamp in _files_in(folder):
            if path.name in noted and noted[path.name].stamp == stamp:
                self._recall(noted[path.name])
            else:
                now = time.time_ns()
                batch = self._open(path)
                note = None if batch is None else _Note(batch, stamp, is_checked=False)
                if note is not None and note.fits and is_settled(stamp, now):
                    fresh.append(note)
        self._remember(fresh)

    @property
    def name(self) -> str:
        """The folder's name, and that of the folder around it: it says whose features these are."""
        return "/".join(self._folder.parts[-2:])

    def refresh(self) -> None:
        """Look for files that other processes have put there since."""
        known = {batch.path for batch in self._batches}
        for path in (path for path, _ in _files_in(self._folder) if path not in known):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        """Whether the cache has the features of a photo."""
        return _id(key) in self._rows

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of some keys the cache has: bool (n,)."""
        return np.fromiter(map(self._rows.__contains__, _ids(keys)), np.bool_, len(keys))

    def __iter__(self) -> Iterator[str]:
        """The keys of all features in the cache."""
        return iter(tuple(map(_text, self._rows)))

    def put(self, keys: Sequence[str], features: Tensor) -> None:
        """Keep one batch: `features` (len(keys), …), any floating dtype."""
        rows = {key: row.contiguous() for key, row in zip(keys, features.float().cpu(), strict=True)}
        data = safetensors.torch.save(rows)
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        write_bytes(path, data, durable=False)
        self._checked.add(path)
        self._know(_batch(path, data[8 : 8 + int.from_bytes(data[:8], "little")]))

    def get(self, keys: Keys) -> Tensor:
        """Return the features of photos that are all in the cache: float32 (len(keys), …).

        Raises:
            ArtifactError: a file was changed or removed during the run.
        """
        if not len(keys):
            return torch.empty(0)
        codes = np.fromiter(map(self._rows.__getitem__, _ids(keys)), np.int64, len(keys))
        places = np.argsort(codes, kind="stable")
        batches, rows = np.divmod(codes[places], _ROWS)
        found = torch.empty(len(keys), *self._batches[batches[0]].shape)
        for first, end in _parts(len(keys), np.flatnonzero(np.diff(batches)) + 1):
            _read_rows(self._batches[batches[first]], places[first:end], rows[first:end], found)
        return found

    def missing(self, keys: Keys) -> list[str]:
        """Return the keys that are missing, in order, each once; files are checked before they are used."""
        ids = _ids(keys)
        codes = np.fromiter(map(self._rows.get, ids, repeat(-1)), np.int64, len(ids))
        used = (self._batches[place] for place in np.unique(codes[codes >= 0] // _ROWS).tolist())
        notes, are_good = [], True
        for batch in used:
            if batch.path in self._checked:
                continue
            now = time.time_ns()
            is_good, stamp = _check(batch.path)
            if not is_good:
                self._forget(batch)
                are_good = False
                continue
            self._checked.add(batch.path)
            if stamp is not None and is_settled(stamp, now):
                notes.append(_Note(batch, stamp, is_checked=True))
        self._remember(notes)
        if are_good and (codes >= 0).all():
            return []
        return [_text(key) for key in dict.fromkeys(ids) if key not in self._rows]

    def _know(self, batch: _Batch) -> None:
        first = len(self._batches) * _ROWS
        self._batches.append(batch)
        self._rows.update(zip(batch.keys, range(first, first + len(batch.keys)), strict=True))

    def _forget(self, batch: _Batch) -> None:
        for key in batch.keys:
            if key in self._rows and self._batches[self._rows[key] // _ROWS] is batch:
                del self._rows[key]

    def _recall(self, note: "_Note") -> None:
        if note.is_checked:
            self._checked.add(note.batch.path)
        self._know(note.batch)

    def _remember(self, notes: Sequence["_Note"]) -> None:
        if notes:
            # The last line may be cut off, if a process was killed.
            _append(self._folder / _INDEX, "".join(["\n", *(note.line() for note in notes)]).encode())

    def _open(self, path: Path) -> _Batch | None:
        """Read a file's header; None if that is not possible now."""
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = file.read(size) if size <= LONGEST_HEADER else b""
            batch = _batch(path, header)
        except OSError:
            # The file may be readable next time.
            return None
        except (ContentError, ValueError, KeyError, TypeError, AttributeError):
            path.unlink(missing_ok=True)
            return None
        self._know(batch)
        return batch


def _id(key: str) -> _Id:
    return bytes.fromhex(key) if _HEX.fullmatch(key) else key


def _ids(keys: Keys) -> Sequence[_Id]:
    return keys_of(keys) if isinstance(keys, np.ndarray) else [_id(key) for key in keys]


def _text(key: _Id) -> str:
    return key.hex() if isinstance(key, bytes) else key


def _digests(text: str) -> NDArray[np.uint8]:
    """Digests whose hex texts follow each other; ValueError: the text is something else."""
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, DIGEST)


def _batch(path: Path, header: bytes) -> _Batch:
    """Read the header of a cache file.

    Raises:
        ContentError, ValueError, KeyError, TypeError, AttributeError: it is not such a header.
    """
    entries = read_json(header, LONGEST_HEADER)
    entries.pop("__metadata__", None)
    ordered = sorted(entries.items(), key=lambda entry: entry[1]["data_offsets"][0])
    shapes = {tuple(int(part) for part in entry["shape"]) for _, entry in ordered}
    if len(shapes) != 1 or any(entry["dtype"] != "F32" for _, entry in ordered):
        raise ValueError("the rows are not those of one batch")
    batch = _Batch(path, 8 + len(header), shapes.pop(), tuple(_id(str(key)) for key, _ in ordered))
    if any(entry["data_offsets"][0] != row * batch.step for row, (_, entry) in enumerate(ordered)):
        raise ValueError("the rows do not follow each other")
    return batch


def _files_in(folder: Path) -> list[tuple[Path, Stamp]]:
    """The cache files of a folder with their stamps, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            names = [entry for entry in entries if entry.name.endswith(".safetensors")]
            return sorted((Path(entry.path), stamp_of(entry.stat())) for entry in names)
    except OSError:
        return []


def _check(path: Path) -> tuple[bool, Stamp | None]:
    """Whether a file's bytes have the digest in its name, and its stamp if it did not change meanwhile.

    A file with other bytes is deleted; a file that cannot be read now is left.
    """
    try:
        with path.open("rb") as file:
            before = stamp_of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = stamp_of(os.fstat(file.fileno()))
    except OSError:
        return False, None
    if digest == path.stem:
        return True, before if before == after else None
    path.unlink(missing_ok=True)
    return False, None


def _read_rows(batch: _Batch, places: NDArray[np.int64], rows: NDArray[np.int64], found: Tensor) -> None:
    """Read rows of a file, ascending, each to its place in `found`."""
    target = found.view(len(found), -1).numpy().view(np.uint8)
    try:
        with batch.path.open("rb", buffering=0) as file:
            for first, end in _spans(rows, batch.step):
                part = np.empty((int(rows[end - 1] - rows[first]) + 1, batch.step), np.uint8)
                if os.preadv(file.fileno(), [part.data], batch.start + int(rows[first]) * batch.step) != part.nbytes:
                    raise ArtifactError("A file of cached features has become shorter", "Run the step again")
                target[places[first:end]] = part[rows[first:end] - rows[first]]
    except OSError as error:
        raise ArtifactError(f"Cached features cannot be read ({error.strerror})", "Run the step again") from None


def _spans(rows: NDArray[np.int64], step: int) -> Iterator[tuple[int, int]]:
    """Places in ascending rows, as (first, end), between which rows lie so close that one read is the fastest."""
    most = max(1, _SPAN // max(1, step))
    for first, end in _parts(len(rows), np.flatnonzero((np.diff(rows) - 1) * step > _GAP) + 1):
        while first < end:
            stop = first + int(np.searchsorted(rows[first:end], rows[first] + most))
            yield first, stop
            first = stop


def _parts(count: int, cuts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The parts between some cuts, as (first, end)."""
    return pairwise([0, *cuts.tolist(), count])


def _read_notes(folder: Path) -> Iterator[_Note]:
    """What was noted about files; later lines override earlier ones."""
    try:
        lines = (folder / _INDEX).read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            # Earlier versions noted checked files only, and did not say so.
            name, stamp, start, shape, keys, *checked = read_json(line, LONGEST_HEADER)
            device, inode, size, content, status = (int(part) for part in stamp)
            batch = _Batch(
                folder / str(name),
                int(start),
                tuple(int(part) for part in shape),
                tuple(_ids(_digests(keys) if isinstance(keys, str) else [str(key) for key in keys])),
            )
        except (ContentError, ValueError, TypeError):
            continue
        is_old = not isinstance(keys, str) and all(isinstance(key, bytes) for key in batch.keys)
        note = _Note(batch, Stamp(device, inode, size, content, status), all(checked), is_old)
        if note.fits:
            yield note


def _append(path: Path, data: bytes) -> None:
    """Add lines; if that fails, the files are checked again next time."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.write(handle, data)
    os.close(handle)
