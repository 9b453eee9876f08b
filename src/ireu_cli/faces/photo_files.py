"""Open a photo's file, which must be a regular file of limited size, even through a link."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.support.bounded import read_one_more

_AROUND = 64 * 2**20
"""The bytes allowed around the pixels: profiles, texts, the film of a motion photo."""
_PIXEL = 8
"""The most bytes of a pixel: four uncompressed channels of 16 bits."""
_CHUNK = 1 << 20
_KINDS = (
    (stat.S_ISDIR, "is a folder, not a file"),
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)
_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Errors that say something about the machine and nothing about the photo."""


def most_bytes(max_megapixels: float) -> int:
    """The largest file for a picture with a number of megapixels: 8 bytes a pixel, and 64 MiB around them."""
    return _AROUND + int(_PIXEL * max_megapixels * 1e6)


def read_photo(path: Path, most: int) -> bytes:
    """All bytes of a photo's file.

    Args:
        path: the file, or a link to it.
        most: the largest allowed number of bytes.

    Raises:
        BadPhotoError: it cannot be opened, is not a regular file (nothing else is ever opened), or is larger.
        OSError: the machine has no more file handles.
        MemoryError: the machine has no more memory.
    """
    with _opened(path, most) as file:
        data = read_one_more(file, most)
    if len(data) > most:
        raise _too_large(most)
    return data


def digest_photo(path: Path, most: int, look: Callable[[BinaryIO], None] | None = None) -> str:
    """SHA-256 (hex) of a photo's file, read in pieces.

    Args:
        path: the file, or a link to it.
        most: the largest allowed number of bytes.
        look: gets the open file and may refuse it.

    Raises:
        BadPhotoError: as in `read_photo`, or raised by `look`.
        OSError: the machine has no more file handles.
        MemoryError: the machine has no more memory.
    """
    digest, left = hashlib.sha256(), most
    with _opened(path, most) as file:
        while chunk := file.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise _too_large(most)
            digest.update(chunk)
        if look:
            file.seek(0)
            look(file)
    return digest.hexdigest()


def why_not_opened(error: OSError) -> str:
    """What a refusal of the system says about a photo or a folder of photos, in words that fit after its label.

    Raises:
        OSError: it says something about the machine.
        MemoryError: the machine has no more memory.
    """
    if error.errno == errno.ENOMEM:
        raise MemoryError from error
    if error.errno in _MACHINE:
        raise error
    if error.errno == errno.ELOOP:
        return "is a link that leads to itself"
    return f"cannot be opened ({error.strerror or type(error).__name__})"


@contextlib.contextmanager
def _opened(path: Path, most: int) -> Iterator[BinaryIO]:
    try:
        # Opening a pipe would wait for a writer, and opening a device may have side effects.
        _refuse_other(path.stat())
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            _refuse_other(found)
            if found.st_size > most:
                raise _too_large(most)
            yield file
    except FileNotFoundError:
        dangling = path.is_symlink()
        raise BadPhotoError("is a link that leads nowhere" if dangling else "no longer exists") from None
    except OSError as error:
        raise BadPhotoError(why_not_opened(error)) from None


def _refuse_other(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadPhotoError(next((words for is_one, words in _KINDS if is_one(found.st_mode)), "is not a file"))


def _too_large(most: int) -> BadPhotoError:
    return BadPhotoError(f"has more than {most // 2**20} MiB, which no picture within data.max_megapixels needs")
