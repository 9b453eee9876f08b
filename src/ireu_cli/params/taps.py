"""What the tensors are called that generators read: one of a few names, the input of a block, or several joined."""

import re
from collections.abc import Container
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from ireu_cli.params.names import Names

TAPS = Names("pooled", "image_embeds", "penultimate", "last", "embedding", "normed_embedding")
"""Taps that have a name of their own; families of encoders may add to them."""
LONGEST_TAP = 200
"""The most characters of a tap."""
_MOST_PARTS = 16
_DEPTH = r"block-(?:0|[1-9][0-9]{0,2})"
_PART = rf"(?:[a-z_]{{1,40}}|{_DEPTH})"
TAP_PATTERN = rf"^{_PART}(?:\+{_PART}){{0,{_MOST_PARTS - 1}}}$"
"""What a tap in a record looks like, whoever named it."""


def parts_of(tap: str) -> tuple[str, ...]:
    """The taps that a tap joins, in their order; a tap that joins none is its own only part."""
    return tuple(tap.split("+"))


def depth_of(part: str) -> int | None:
    """The block whose input a part is, N of `block-N`; None for parts with a name of their own."""
    return int(part.removeprefix("block-")) if re.fullmatch(_DEPTH, part) else None


def unknown_parts(tap: str, named: Container[str]) -> tuple[str, ...]:
    """The parts of a tap that are neither one of some names nor the input of a block."""
    return tuple(part for part in parts_of(tap) if part not in named and depth_of(part) is None)


def has_depths(tap: str) -> bool:
    """Whether it is the input of a block, or joins several taps."""
    return len(parts_of(tap)) > 1 or depth_of(tap) is not None


def _checked(value: Any) -> Any:
    """The value, after checking that it is a tap.

    Raises:
        PydanticCustomError: it is none.
    """
    return check_joined(value) if isinstance(value, str) and _is_composed(value) else TAPS.checked(value)


def _is_composed(value: str) -> bool:
    return "+" in value or value.startswith("block-")


def check_joined(value: str) -> str:
    """A tap as it is, after checking it where it is the input of a block or joins taps; others are not looked at.

    Raises:
        PydanticCustomError: it is no such tap.
    """
    if not _is_composed(value):
        return value
    parts = parts_of(value)
    if unknown_parts(value, TAPS):
        raise _mistake("has a part that is no tap: use block-N with N from 0 to 999, or a tap with a name")
    if len(set(parts)) != len(parts):
        raise _mistake("names a part twice")
    if len(parts) > _MOST_PARTS or len(value) > LONGEST_TAP:
        raise _mistake(f"joins too many parts: at most {_MOST_PARTS}, and {LONGEST_TAP} characters")
    return value


def _mistake(what: str) -> PydanticCustomError:
    return PydanticCustomError("tap", "The tap {what}", {"what": what})


Tap = Annotated[str, BeforeValidator(_checked)]
"""What a tensor that generators read is called; which encoders have it is told by `encoders.families`.

Besides the names of `TAPS` it may be `block-N`, the tokens that enter block N, or several taps joined by `+`, whose
tokens come one after another.
"""
