"""Grids of photos and drawn pictures, unchanged."""

import struct
from base64 import b64encode
from collections.abc import Sequence

from ireu_cli.report import Report
from ireu_cli.report_page.markup import NOTHING, Html, el, join, note
from ireu_cli.report_page.words import ROLES, sentence

Picture = tuple[str, str, bytes]
"""A grid of pictures: generator, role, PNG."""

_SIDE = 128
"""The size of a cell on the page, in pixels."""
_ORDER = ("target-unseen", "target-seen", "look-alike", "retained")
_NONE = (
    "This report has no pictures, because they show people. They are left out without ",
    el("code", "--with-pictures", cls="whole"),
    ".",
)


def gallery(report: Report, pictures: Sequence[Picture]) -> Html:
    """The grids by generator, or a sentence that there are none."""
    if not pictures:
        return note(*_NONE) if report.level == "generator" else NOTHING
    words = (
        "Each column shows, from top to bottom: the photo, the picture drawn from it with the original encoder, and "
        "the picture drawn with the edited one, with the same prompt and noise.",
        "These pictures show people. Treat this file like the photos.",
    )
    parts = [note(words[0]), el("p", words[1], cls="warning")]
    for generator in dict.fromkeys(generator for generator, _, _ in pictures):
        grids = sorted((_place(role), role, png) for name, role, png in pictures if name == generator)
        parts += [el("h3", f"Generator {generator}"), _side_by_side(generator, grids)]
    return join(parts)


def _side_by_side(generator: str, grids: Sequence[tuple[int, str, bytes]]) -> Html:
    return el("div", *(_grid(generator, role, png) for _, role, png in grids), cls="galleries")


def _place(role: str) -> int:
    return _ORDER.index(role) if role in _ORDER else len(_ORDER)


def _grid(generator: str, role: str, png: bytes) -> Html:
    who = ROLES.get(role, role)
    alt = (
        f"Rows, from top to bottom: photos ({who}), pictures drawn before, pictures drawn after. Generator {generator}."
    )
    width, height = _size(png)
    factor = _factor(height)
    image = el(
        "img", src=f"data:image/png;base64,{b64encode(png).decode()}", alt=alt, width=width and round(factor * width),
        height=height and round(factor * height), cls="crisp" if factor >= 1 and factor == int(factor) else None,
    )  # fmt: skip
    rows = el("span", *(el("span", word) for word in ("photo", "before", "after")), cls="rows", aria_hidden="true")
    shown = el("div", image, cls="scroll", tabindex="0", role="region", aria_label=f"Pictures, {who}")
    return el("figure", el("figcaption", sentence(who)), el("div", rows, shown, cls="grid"), cls="gallery")


def _factor(height: int | None) -> float:
    """The factor by which a grid of three rows is enlarged: a whole number, so that small pictures stay sharp."""
    if not height:
        return 1.0
    factor = 3 * _SIDE / height
    return float(round(factor)) if factor >= 1 else factor


def _size(png: bytes) -> tuple[int | None, int | None]:
    """Width and height from the header of a PNG file; None if it has no such header."""
    if len(png) < 24 or png[12:16] != b"IHDR":
        return None, None
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)
