"""Tables, badges and small bars."""

from collections.abc import Sequence

from ireu_cli.report import Figure, Outcome
from ireu_cli.report_page.markup import NOTHING, Html, el, join
from ireu_cli.report_page.words import number, span

Row = Sequence[str]
Body = tuple[str | None, Sequence[Row]]
"""Rows with or without a heading of their own."""

_SHAPES = {
    "pass": ("M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", "M7.2 12.4l3.2 3.2 6.4-7"),
    "fail": ("M8 2h8l6 6v8l-6 6H8l-6-6V8z", "M8.4 8.4l7.2 7.2M15.6 8.4l-7.2 7.2"),
    "inconclusive": ("M12 1.5L22.5 12 12 22.5 1.5 12z", "M9.6 9.6a2.4 2.4 0 1 1 3.4 2.3c-.8.4-1 .8-1 1.7M12 16.6v.1"),
}
"""Outline and symbol of each outcome on a square of 24; they differ in shape as well as in colour."""


def icon(outcome: Outcome) -> Html:
    """The symbol of an outcome, beside its word."""
    outline, sign = _SHAPES[outcome]
    shapes = join((el("path", d=outline, cls="ground"), el("path", d=sign, cls="sign")))
    return el("svg", shapes, cls="icon", viewBox="0 0 24 24", aria_hidden="true")


def badge(outcome: Outcome, word: str | None = None) -> Html:
    """An outcome as a symbol and a word."""
    return el("span", icon(outcome), word or outcome, cls=f"badge {outcome}")


def table(caption: str, head: Sequence[str], bodies: Sequence[Body], numeric: Sequence[int] = ()) -> Html:
    """Build a table that scrolls inside itself if it is too wide; nothing if there are no rows.

    Args:
        caption: what the table shows.
        head: headings of the columns; the first column heads the rows.
        bodies: rows, each as long as `head`.
        numeric: columns that are aligned to the right.
    """
    if not any(rows for _, rows in bodies):
        return NOTHING
    header = el("tr", *(el("th", text, scope="col", cls=_class(n, numeric)) for n, text in enumerate(head)))
    groups = join(_body(title, rows, len(head), numeric) for title, rows in bodies if rows)
    whole = el("table", el("caption", el("span", caption)), el("thead", header), groups)
    return el("div", whole, cls="scroll", tabindex="0", role="region", aria_label=caption)


def with_span(figure: Figure) -> Html:
    """A figure and its interval."""
    interval = span(figure)
    small = None if interval is None else el("small", f" {interval}")
    return el("span", number(figure.value, figure.unit), small, cls="value")


def bar(share: float, state: str, limit: float | None = None) -> Html:
    """A share as a bar beside its number, with a mark at the limit."""
    width = f"--share:{100 * min(max(share, 0.0), 1.0):.1f}%"
    mark = NOTHING if limit is None else el("i", style=f"--limit:{100 * min(max(limit, 0.0), 1.0):.1f}%")
    return el("span", el("b", style=width), mark, cls=f"bar {state}", aria_hidden="true")


def _body(title: str | None, rows: Sequence[Row], width: int, numeric: Sequence[int]) -> Html:
    heading = None
    if title is not None:
        heading = el("tr", el("th", title, scope="rowgroup", colspan=width), cls="group")
    return el("tbody", heading, *(_row(row, numeric) for row in rows))


def _row(row: Row, numeric: Sequence[int]) -> Html:
    cells = [
        el("th", cell, scope="row") if n == 0 else el("td", cell, cls=_class(n, numeric)) for n, cell in enumerate(row)
    ]
    return el("tr", *cells)


def _class(column: int, numeric: Sequence[int]) -> str | None:
    return "n" if column in numeric else None
