"""Read what others wrote, within bounds: JSON, names and relative paths from files that may be hostile.

Callers turn a `ContentError` into an error of their own kind, with `why` in the sentence.
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
"""The default limit on the bytes of a JSON file; the largest known one has a tenth of it."""
MOST_HEADER = 1 << 25
"""The most bytes of a safetensors header; for a model of a thousand tensors it has a hundred thousand."""
DEEPEST = 32
"""The most levels of nested lists and objects."""
_DIGITS = 40
"""The most digits of a whole number: no float overflows with that many."""
_MOST_PATH = 1024
_MOST_NAME = 255
"""The most bytes of a file's name that systems accept."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class ContentError(UserError):
    """The content of a file exceeds its bounds. `why` says how; it follows the name of the file in a sentence."""

    def __init__(self, name: str, why: str, remedy: str = "Use an undamaged copy") -> None:
        """Keep the reason; `str(error)` is a complete sentence."""
        super().__init__(f"{name} {why}", remedy)
        self.why = why


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All bytes of a regular file, with a limit on their number.

    Raises:
        ContentError: it is larger, or not a regular file (a pipe would never end).
        OSError: it does not exist, or may not be read.
    """
    # Opening a pipe would wait for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ContentError(path.name, "is not a regular file")
        data = read_one_more(file, most_bytes)
    if len(data) > most_bytes:
        raise ContentError(path.name, f"is larger than {_size(most_bytes)}")
    return data


def read_one_more(file: BinaryIO, most_bytes: int) -> bytes:
    """The content of an open file, up to the limit and one byte more, which shows that it is larger."""
    size = os.fstat(file.fileno()).st_size
    # Python allocates as much as it is asked to read, and system files say that they are empty.
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
    """The value of a JSON file, or of its bytes; a byte order mark at the beginning is ignored.

    Args:
        source: the file, or its content.
        most_bytes: the largest allowed size.
        deepest: the most levels of nested lists and objects.
        name: the name in messages; by default the file's own name.
        repeats: whether an object may state a key twice; the last one counts, as in Python's own reader.
        surrogates: whether a string may hold halves of characters, which cannot be written as UTF-8.

    Raises:
        ContentError: it is too large, nested too deeply, not UTF-8 or not JSON, or it holds a number that is not finite
            or has more than 40 digits, a key twice in one object, or half of a character.
        OSError: the file does not exist, or may not be read.
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
    r"""Check a name from a file, which may become part of a file's name and be shown on a terminal and in a page.

    It may hold letters and digits of any script, spaces, and signs except `/ \ : * ? " < > |`. It may not hold
    characters that do not print or that turn the direction of writing. It may not begin with a dot, dash or space, or
    end with a dot or space.

    Raises:
        ContentError: it is not such a name; `what` begins the sentence.
    """
    if not isinstance(text, str) or not text:
        raise ContentError(what, "is missing, or is not text")
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
    """Check that a path from a file leads downwards as it is written; nothing is looked up.

    Raises:
        ContentError: it is empty, absolute, leads upwards, or holds a backslash or a character that does not print.
    """
    if not isinstance(text, str) or not text.strip():
        raise ContentError(what, "is missing, or is not text")
    if len(text) > _MOST_PATH:
        raise ContentError(what, f"is longer than {_MOST_PATH} characters")
    parts = text.split("/")
    if any(len(part.encode(errors="replace")) > _MOST_NAME for part in parts):
        raise ContentError(what, f"holds a name of more than {_MOST_NAME} bytes")
    drive = re.match("[A-Za-z]:", text)
    if not text.isprintable() or "\\" in text or drive or text.startswith(("/", "~")) or ".." in parts:
        raise ContentError(
            f"{what} {printable(text)!r}", "leads out of its folder", "Correct it: it may only lead downwards"
        )
    return text


def inside(folder: Path, text: Any, what: str = "The path") -> Path:
    """The target of a path from a file, checked to be inside a folder even through links; it need not exist.

    A link may lead out of the folder in one case: into the `blobs` of the hub's cache, if the folder is a snapshot
    there.

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
    """Whether a path ends inside a folder, or in the `blobs` of the hub's cache if the folder is a snapshot there."""
    try:
        root, end = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError):
        # The links form a circle.
        return False
    if end.is_relative_to(root):
        return True
    snapshots = next((parent for parent in (root, *root.parents) if parent.parent.name == "snapshots"), None)
    return snapshots is not None and end.is_relative_to(snapshots.parent.parent / "blobs")


def printable(text: Any, most: int = 80) -> str:
    """Text from a file for a message: `escaped`, and cut if it is too long."""
    cut = str(text)[: most + 1]
    shown = escaped(cut[:most])
    return f"{shown}…" if len(cut) > most else shown


def escaped(text: str) -> str:
    r"""One line in which characters that act on a terminal or turn the direction of reading are escaped.

    Control characters, including line breaks, become `\x1b` and the like, and so do bytes of a path that are not UTF-8.
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def _sign(sign: str) -> str:
    if sign.isprintable():
        return sign
    # In a path, a byte that is not UTF-8 is half of a character.
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


class _BoundError(Exception):
    """The error that our json hooks raise; not a ValueError, which json raises itself."""


def _no_number(text: str) -> float:
    raise _BoundError(f"holds {text}, which is not a number")


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
    """What is wrong with a parsed value, checked level by level."""
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
