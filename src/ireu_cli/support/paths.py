"""Names of files that may not be text."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_text(path: Path) -> Iterator[Path]:
    """A path to a file for libraries that only take text; the file's own path if its name is text.

    Files that were opened by this path stay open and mapped afterwards.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        yield path
        return
    try:
        yield Path(f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)
