"""Markup that is escaped by construction: everything that is not `Html` is text."""

from collections.abc import Iterable
from html import escape

_VOID = {"img", "link", "meta", "wbr"}

Value = str | int | float | bool | None


class Html(str):
    """Text that is already markup. Only the functions of this file and constants make it."""

    __slots__ = ()


NOTHING = Html("")


def join(parts: Iterable[str | None]) -> Html:
    """Join parts; text among them is escaped, None is left out."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts if part is not None))


def el(tag: str, *children: str | None, **attributes: Value) -> Html:
    """Build one element.

    Args:
        tag: its name.
        children: text, which is escaped, or markup, which is not.
        attributes: `cls` means `class`, and underscores mean hyphens; None and False leave an attribute out.
    """
    opening = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    return Html(f"<{opening}>" if tag in _VOID else f"<{opening}>{join(children)}</{tag}>")


def section(key: str, title: str, content: Html) -> Html:
    """A section of the page with its heading."""
    return el("section", el("h2", title, id=key), content, aria_labelledby=key)


def note(*children: str | None) -> Html:
    """A paragraph in running text."""
    return el("p", *children, cls="note")


def fold(title: str, *children: str | None) -> Html:
    """Content that is shown on demand; nothing if there is no content."""
    content = join(children)
    return el("details", el("summary", title), content) if content else NOTHING


def listed(items: Iterable[str]) -> Html:
    """A bulleted list; nothing if it is empty."""
    points = join(el("li", item) for item in items)
    return el("ul", points) if points else NOTHING


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """Names and values side by side."""
    pairs = join(el("div", el("dt", name), el("dd", value)) for name, value in rows)
    return el("dl", pairs, cls="facts") if pairs else NOTHING


def code(text: str) -> Html:
    """A name or a digest; a name may only wrap after its underscores."""
    parts = text.split("_")
    return el("code", *(join((part, "_", el("wbr"))) for part in parts[:-1]), parts[-1])


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = "class" if key == "cls" else key.replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
