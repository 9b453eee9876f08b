"""Digests of photos that were read before, found by the stamps of their files."""

import contextlib
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.errors import ArtifactError
from ireu_cli.store.features import read_tensors, write_tensors
from ireu_cli.support.stamps import is_settled, stamp_of

_STAMP = struct.Struct("=5Q")
_WORD = 2**64
_DIGEST = 32
"""The bytes of a SHA-256."""


class DigestBook:
    """SHA-256 of files by their stamps, kept from run to run; paths are not stored."""

    def __init__(self, place: Callable[[], Path], *, is_new: bool = False) -> None:
        """Read the digests; a missing or damaged file counts as empty.

        Args:
            place: gives the file, and makes the folder around it; not called before there is something to keep or read.
            is_new: there is no file yet.
        """
        self._place = place
        self._known = {} if is_new else _unpacked(read_tensors(place()))
        self._met: list[bytes] = []
        self._has_grown = False

    def digest(self, file: str, read: Callable[[str], str]) -> str:
        """SHA-256 (hex) of a file's bytes, which are read if the file has changed since the last time, or may have.

        Args:
            file: the path.
            read: gives the digest, or raises an error about the file; errors are not remembered.

        Raises:
            OSError: the file disappeared while it was read.
        """
        try:
            status = os.stat(file)  # noqa: PTH116 - a Path for each of very many takes longer
        except OSError:
            # The reader of photos reports the error.
            return read(file)
        key = _key(status)
        if (known := self._known.get(key)) is not None:
            self._met.append(key)
            return sys.intern(known.hex())
        now = time.time_ns()
        # The caches of features use the same text for photos.
        digest = sys.intern(read(file))
        if key == _key(os.stat(file)) and is_settled(stamp_of(status), now):  # noqa: PTH116
            self._known[key] = bytes.fromhex(digest)
            self._met.append(key)
            self._has_grown = True
        return digest

    def keep(self) -> None:
        """Store the files that were met, if there are new ones; if that fails, they are read again next time."""
        if self._has_grown:
            with contextlib.suppress(ArtifactError):
                write_tensors(self._place(), _packed({key: self._known[key] for key in self._met}))


def _key(status: os.stat_result) -> bytes:
    """A file's stamp as 40 bytes: a hundred thousand stamps as Python's numbers would take four times the memory."""
    try:
        # As in `Stamp`, which takes longer to make.
        return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except struct.error:
        # Inodes may take all 64 bits; times may lie before 1970, or after 2262.
        return _STAMP.pack(*(part % _WORD for part in stamp_of(status)))


def _packed(digests: dict[bytes, bytes]) -> dict[str, Tensor]:
    stamps, values = bytearray(b"".join(digests)), bytearray(b"".join(digests.values()))
    return {
        "stamps": torch.frombuffer(stamps, dtype=torch.int64).view(len(digests), -1),
        "digests": torch.frombuffer(values, dtype=torch.uint8).view(len(digests), -1),
    }


def _unpacked(tensors: dict[str, Tensor] | None) -> dict[bytes, bytes]:
    if tensors is None:
        return {}
    stamps, digests = tensors["stamps"].numpy().tobytes(), tensors["digests"].numpy().tobytes()
    rows = zip(range(0, len(stamps), _STAMP.size), range(0, len(digests), _DIGEST), strict=True)
    return {stamps[stamp : stamp + _STAMP.size]: digests[digest : digest + _DIGEST] for stamp, digest in rows}
