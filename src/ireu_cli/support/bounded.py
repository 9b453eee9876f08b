"""What others wrote, read within bounds: JSON, names and relative paths out of files that may mean harm.

Whoever calls it turns a `ContentError` into an error of its own kind, with `why` in the sentence.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ireu_cli.errors import UserError

MOST_JSON = 1 << 20
"""Bytes of a JSON file that describes something, by default; the largest known one has a tenth of it."""
DEEPEST = 32
"""Levels of lists and objects in each other."""
_DIGITS = 40
"""Of a whole number: no float overflows with so many."""
_MOST_PATH = 1024
_MOST_NAME = 255
"""Bytes of a file's name that systems take."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class ContentError(UserError):
    """What a file holds goes beyond its bounds. `why` says how, and goes on after the name of the file."""

    def __init__(self, name: str, why: str, remedy: str = "Use an undamaged copy") -> None:
        """Keep what is wrong; `str(error)` is a sentence by itself."""
        super().__init__(f"{name} {why}", remedy)
        self.why = why


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All bytes of a regular file that has no more than so many.

    Raises:
        ContentError: it is larger, or no regular file (a pipe would never end).
        OSError: it is not there, or may not be read.
    """
    # Opening a pipe would wait for somebody to write.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ContentError(path.name, "is no regular file")
        data = read_one_more(file, most_bytes)
    if len(data) > most_bytes:
        raise ContentError(path.name, f"is larger than {_size(most_bytes)}")
    return data


def read_one_more(file: BinaryIO, most_bytes: int) -> bytes:
    """All that an open file holds, up to so many bytes and one more, which tells that it is larger."""
    size = os.fstat(file.fileno()).st_size
    # Python makes room for all that it is asked to read. Files of the system call themselves empty.
    data = file.read(min(size, most_bytes) + 1)
    return data + file.read(most_bytes + 1 - len(data)) if len(data) > size else data


def read_json(
    source: Path | bytes,
    most_bytes: int = MOST_JSON,
    *,
    deepest: int = DEEPEST,
    name: str | None = None,
    repeats: bool = False,
    surrogates: bool = False,
) -> Any:
    """The value of a JSON file, or of its bytes; a byte order mark before it is passed over.

    Args:
        source: the file, or what it holds.
        most_bytes: how large it may be.
        deepest: how many lists and objects may lie in each other.
        name: how messages call it; by default the file's own name.
        repeats: whether an object may state a key twice; the last one counts, as in Python's own reader.
        surrogates: whether a string may hold halves of characters, which cannot be written as UTF-8.

    Raises:
        ContentError: too large, nested too deeply, not UTF-8, not JSON, a number that is not finite or has more than 40
            digits, a key that an object states twice, half of a character.
        OSError: the file is not there, or may not be read.
    """
    who = printable(name or (source.name if isinstance(source, Path) else "The text"))
    data = read_bounded(source, most_bytes) if isinstance(source, Path) else source
    if len(data) > most_bytes:
        raise ContentError(who, f"is larger than {_size(most_bytes)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ContentError(who, "is not text in UTF-8") from None
    try:
        value = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=dict if repeats else _once,
        )
    except _BoundError as error:
        raise ContentError(who, str(error)) from None
    except RecursionError:
        raise ContentError(who, f"is nested more than {deepest} levels deep") from None
    except ValueError:
        raise ContentError(who, "is not JSON") from None
    if why := _beyond(value, deepest, surrogates or "\\u" not in text):
        raise ContentError(who, why)
    return value


def safe_name(text: Any, most: int = 64, what: str = "The name") -> str:
    r"""A name out of a file, which may become part of a file's name and stand on a terminal and in a page.

    Letters and digits of any script, spaces, and signs but `/ \ : * ? " < > |`; no character that prints nothing or
    turns the direction of writing, no dot, dash or space in front, no dot or space behind.

    Raises:
        ContentError: it is none; `what` begins the sentence.
    """
    if not isinstance(text, str) or not text:
        raise ContentError(what, "is missing, or no text")
    if len(text) > most:
        raise ContentError(what, f"is longer than {most} characters")
    if not text.isprintable() or set(text) & set('/\\:*?"<>|') or text[0] in ".- " or text[-1] in ". ":
        raise ContentError(
            f"{what} {printable(text)!r}",
            "holds a character that names may not hold",
            "Use letters, digits, spaces, and - _ . + ( ) between them",
        )
    return text


def relative_path(text: Any, what: str = "The path") -> str:
    """A path out of a file that leads downwards, as it stands there; nothing is looked up.

    Raises:
        ContentError: it is empty, absolute, goes upwards, or holds a character that prints nothing or a backslash.
    """
    if not isinstance(text, str) or not text.strip():
        raise ContentError(what, "is missing, or no text")
    if len(text) > _MOST_PATH:
        raise ContentError(what, f"is longer than {_MOST_PATH} characters")
    parts = text.split("/")
    if any(len(part.encode(errors="replace")) > _MOST_NAME for part in parts):
        raise ContentError(what, f"holds a name of more than {_MOST_NAME} bytes")
    drive = re.match("[A-Za-z]:", text)
    if not text.isprintable() or "\\" in text or drive or text.startswith(("/", "~")) or ".." in parts:
        raise ContentError(
            f"{what} {printable(text)!r}", "leads out of its folder", "Correct it: it may lead downwards alone"
        )
    return text


def inside(folder: Path, text: Any, what: str = "The path") -> Path:
    """Where a path out of a file leads, which is inside a folder, links included; it need not exist.

    A link may lead out of the folder in one case: into the `blobs` of the hub's cache that the folder is a snapshot of.

    Raises:
        ContentError: it leads elsewhere; see `relative_path`.
    """
    path = folder / relative_path(text, what)
    if not leads_inside(folder, path):
        raise ContentError(
            f"{what} {printable(text)!r}",
            "is a link that leads out of its folder",
            "Put a copy there instead of the link",
        )
    return path


def leads_inside(folder: Path, path: Path) -> bool:
    """Whether a path ends inside a folder, or in the hub's cache inside the `blobs` that it is a snapshot of."""
    try:
        root, end = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError):
        # Links in a circle.
        return False
    if end.is_relative_to(root):
        return True
    snapshots = next((parent for parent in (root, *root.parents) if parent.parent.name == "snapshots"), None)
    return snapshots is not None and end.is_relative_to(snapshots.parent.parent / "blobs")


def printable(text: Any, most: int = 80) -> str:
    """Text out of a file for a message: `escaped`, and cut where it is too long."""
    cut = str(text)[: most + 1]
    shown = escaped(cut[:most])
    return f"{shown}…" if len(cut) > most else shown


def escaped(text: str) -> str:
    r"""One line without anything that acts on a terminal or turns the direction of reading; such signs are escaped.

    Control characters, line breaks included, become `\x1b` and the like, and so do bytes of a path that are no UTF-8.
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def _sign(sign: str) -> str:
    if sign.isprintable():
        return sign
    # A byte that is no UTF-8 stands in a path as half of a character.
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


class _BoundError(Exception):
    """What json's hooks raise; not a ValueError, which json raises itself."""


def _no_number(text: str) -> float:
    raise _BoundError(f"holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _BoundError("holds a number that is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise _BoundError("holds a number that is too large")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _BoundError(f"states the key {printable(twice, 40)} twice")
    return found


def _beyond(value: Any, deepest: int, any_text: bool) -> str | None:
    """What is wrong with a parsed value, looked at level by level."""
    level, depth = [value], 0
    while level:
        if not any_text and any(_SURROGATE.search(text) for each in level for text in _texts(each)):
            return "holds half of a character"
        level = [each for each in level if isinstance(each, dict | list)]
        depth += bool(level)
        if depth > deepest:
            return f"is nested more than {deepest} levels deep"
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return None


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []


def _size(count: int) -> str:
    return f"{count / (1 << 20):.4g} MB" if count >= 1 << 20 else f"{count} bytes"
