"""Digests of photos that were read before, found by the stamps of their files."""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ireu_cli.errors import ArtifactError
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.photo_table import DIGEST, keys_of
from ireu_cli.support.stamps import Stamp, is_settled, stamp_of

_STAMP = struct.Struct("=5Q")
_pack = _STAMP.pack
_WORD = 2**64


class DigestBook:
    """Digests of files by their stamps, plain and keyed, kept from run to run; paths are not stored."""

    def __init__(self, place: Callable[[], Path], keyed: Callable[[bytes], bytes], *, is_new: bool = False) -> None:
        """Read the digests; a missing or damaged file counts as empty.

        Args:
            place: gives the file, and makes the folder around it; not called before there is something to keep or read.
                The file's name depends on the key.
            keyed: gives the 32 bytes of the keyed digest of a SHA-256.
            is_new: there is no file yet.
        """
        self._place, self._keyed = place, keyed
        found = None if is_new else read_tensors(place())
        # Earlier versions did not keep keyed digests.
        self._is_old = found is not None and "keyed" not in found
        self._stamps, self._digests, self._keys = _unpacked(found, keyed)
        self._asked: dict[str, bytes] = {}
        self._met: list[tuple[bytes, bytes]] = []

    def recognise(self, files: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Digests of files if they are those that the last run met, in the same order, and none has changed.

        Returns:
            The digests and the keyed digests: uint8 (n, 32) each.
        """
        self._asked = {}
        try:
            stamps = list(map(_key, map(os.stat, files)))
        except OSError:
            # The reader of photos reports the error.
            return None
        if b"".join(stamps) != self._stamps:
            self._asked = dict(zip(files, stamps, strict=True))
            return None
        return self._digests, self._keys

    def digest(self, file: str, read: Callable[[str], str]) -> bytes:
        """A file's SHA-256 and its keyed digest, 32 bytes each; it is read if it may have changed since the last time.

        Args:
            file: the path.
            read: gives the digest (hex), or raises an error about the file; errors are not remembered.

        Raises:
            OSError: the file disappeared while it was read.
        """
        key = self._asked.get(file)
        try:
            key = key or _key(os.stat(file))  # noqa: PTH116
        except OSError:
            # The reader of photos reports the error.
            return self._with_keyed(read(file))
        known = self._known.get(key)
        if known is None:
            now = time.time_ns()
            known = self._with_keyed(read(file))
            if key != _key(os.stat(file)) or not is_settled(_stamp(key), now):  # noqa: PTH116
                return known
        self._met.append((key, known))
        return known

    def keep(self) -> None:
        """Store the files that were met, if they are not the stored ones; if that fails, they are read again next time.

        If files are gone, the rest is stored again too, so that the next run recognises it as a whole.
        """
        if self._met:
            stamps = b"".join(stamp for stamp, _ in self._met)
            if stamps != self._stamps:
                rows = np.frombuffer(b"".join(row for _, row in self._met), np.uint8).reshape(-1, 2 * DIGEST)
                self._write(stamps, rows[:, :DIGEST], rows[:, DIGEST:])
        elif self._is_old:
            self._write(self._stamps, self._digests, self._keys)

    def _write(self, stamps: bytes, digests: NDArray[np.uint8], keys: NDArray[np.uint8]) -> None:
        with contextlib.suppress(ArtifactError):
            write_tensors(self._place(), _packed(stamps, digests, keys))

    @cached_property
    def _known(self) -> dict[bytes, bytes]:
        stamps = np.frombuffer(self._stamps, np.uint8).reshape(-1, _STAMP.size)
        rows = np.concatenate([self._digests, self._keys], 1)
        return dict(zip(keys_of(stamps), keys_of(rows), strict=True))

    def _with_keyed(self, digest: str) -> bytes:
        plain = bytes.fromhex(digest)
        return plain + self._keyed(plain)


def _key(status: os.stat_result) -> bytes:
    """A file's stamp as 40 bytes: a hundred thousand stamps as Python's numbers would take four times the memory."""
    try:
        # As in `Stamp`, which takes longer to make.
        return _pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except struct.error:
        # Inodes may take all 64 bits; times may lie before 1970, or after 2262.
        return _STAMP.pack(*(part % _WORD for part in stamp_of(status)))


def _stamp(key: bytes) -> Stamp:
    """The inverse of `_key`, with times before 1970."""
    device, inode, size, *times = _STAMP.unpack(key)
    content, status = (time - _WORD if time >= _WORD // 2 else time for time in times)
    return Stamp(device, inode, size, content, status)


def _packed(stamps: bytes, digests: NDArray[np.uint8], keys: NDArray[np.uint8]) -> dict[str, Tensor]:
    return {
        "stamps": torch.frombuffer(bytearray(stamps), dtype=torch.int64).view(len(digests), -1),
        "digests": torch.from_numpy(digests.copy()),
        "keyed": torch.from_numpy(keys.copy()),
    }


def _unpacked(
    tensors: dict[str, Tensor] | None, keyed: Callable[[bytes], bytes]
) -> tuple[bytes, NDArray[np.uint8], NDArray[np.uint8]]:
    """Stamps as they follow each other, digests and keyed digests."""
    if tensors is None:
        nothing = np.empty((0, DIGEST), np.uint8)
        return b"", nothing, nothing
    digests = tensors["digests"].numpy()
    if "keyed" in tensors:
        keys = tensors["keyed"].numpy()
    else:
        keys = np.frombuffer(b"".join(map(keyed, keys_of(digests))), np.uint8).reshape(digests.shape)
    return tensors["stamps"].numpy().tobytes(), digests, keys
