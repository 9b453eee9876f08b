"""Names of files that need not be text."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_text(path: Path) -> Iterator[Path]:
    """A path to a file for libraries that take text alone; the file itself wherever its name is text.

    What was opened by it meanwhile stays open and mapped.

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
