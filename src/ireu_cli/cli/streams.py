"""Handle standard streams that are closed, full or of another encoding, and libraries that write to them."""

import codecs
import logging
import sys
import traceback
import warnings
from typing import Any, TextIO

from ireu_cli.cli.output import drop, say
from ireu_cli.support.bounded import escaped

_ESCAPES = "ireu-bytes"


def prepare() -> None:
    """Set up stdout and stderr so that no text can fail or act on the terminal, whoever prints it."""
    codecs.register_error(_ESCAPES, _as_bytes)
    sys.stdout = _opened(sys.stdout, 1, _ESCAPES)
    sys.stderr = _opened(sys.stderr, 2, "backslashreplace")
    warnings.showwarning = _warn
    logging.setLogRecordFactory(_CleanRecord)


def show_traceback() -> None:
    """Print a bug as Python would, without characters that act on a terminal."""
    for line in traceback.format_exc().splitlines():
        say(line)


def close(code: int) -> int:
    """Write what is left; returns the exit code, which changes if that fails."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop(sys.stdout)
        return code or 3
    return code


def _opened(stream: TextIO | None, number: int, errors: str) -> TextIO:
    if stream is None:
        return open(number, "w", encoding="utf-8", errors=errors, closefd=False)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)
    return stream


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Make a stream accept any path: characters that its encoding lacks are written as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return text.encode("utf-8", "surrogateescape"), error.end


def _warn(message: Warning | str, category: type[Warning], *_place: Any, **_more: Any) -> None:
    say(f"{category.__name__}: {message}")


class _CleanRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 - logging's name
        """Log records of libraries, whose text may come from a file."""
        return "\n".join(escaped(line) for line in super().getMessage().split("\n"))
