"""The main figures as rows with intervals, before and after on one axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from ireu_cli.report import Figure, Report, Unit
from ireu_cli.report_page.graphs.plots import Frame, key, ticks
from ireu_cli.report_page.markup import NOTHING, Html, el, join, note
from ireu_cli.report_page.pick import before, criterion, places, plain
from ireu_cli.report_page.words import ROLES, STATES, number, place, sentence, span

_ROLES = ("target-unseen", "target-seen", "look-alike", "retained")
_WORDS = {
    "reidentified": "Pictures that the recogniser matches with the person",
    "match_rate": "Photos whose features match the person",
    "id_original": "Similarity of picture and photo",
    "id_generated": "Similarity of pictures before and after",
    "similarity": "Similarity of features and enrolment",
    "feature_cosine": "Similarity of features before and after",
    "kid": "Distance of drawn pictures to photos (KID)",
}
_LIMITS = {
    ("reidentified", "target-seen"): "reidentified_seen",
    ("reidentified", "target-unseen"): "reidentified_unseen",
    ("match_rate", "target-seen"): "match_seen",
    ("match_rate", "target-unseen"): "match_unseen",
    ("id_generated", "retained"): "retained_id",
    ("id_generated", "look-alike"): "lookalike_id",
    ("feature_cosine", "retained"): "retained_similarity",
    ("feature_cosine", "look-alike"): "lookalike_similarity",
}
"""The criterion that sets the limit of each figure."""


@dataclass(frozen=True)
class _Line:
    """One row: whom it is about, the figures of its states, and the limit of the last one."""

    role: str
    measure: str
    figures: tuple[Figure, ...]
    limit: float | None


def forest(report: Report) -> Html:
    """Draw the main figures of features and pictures; nothing if there are none."""
    panels = join(_panel(report, generator, name) for generator in places(report) for name in _WORDS)
    if not panels:
        return NOTHING
    legend = key((("dot before", "before"), ("dot after", "after"), ("limit", "limit of a criterion")))
    return join(
        (
            el("h3", "Main figures, before and after"),
            note(
                "Dots are means. Bars are 95\u00a0% intervals over people; they need at least three people. "
                "Unlearning used the targets' used photos and never saw the other ones."
            ),
            legend,
            el("div", panels, cls="panels"),
        )
    )


def _panel(report: Report, generator: str | None, name: str) -> Html:
    rows = [row for role in _ROLES for row in _lines(report, generator, name, role)]
    if not rows:
        return NOTHING
    unit = rows[0].figures[0].unit
    frame = _frame(rows, unit)
    several = len({row.measure for row in rows}) > 1
    lines = join(_row(row, frame, several) for row in rows)
    title = f"{place(generator)}: {_WORDS[name][:1].lower()}{_WORDS[name][1:]}"
    by = NOTHING if several else el("small", f" by {rows[0].measure}")
    return el("figure", el("figcaption", title, by), _heads(rows), el("ol", lines), _axis(frame, unit), cls="forest")


def _lines(report: Report, generator: str | None, name: str, role: str) -> list[_Line]:
    found = []
    bound = criterion(report, _LIMITS.get((name, role), ""), generator)
    pairs = plain(report, name, generator, role, "edited")
    for figure in pairs or plain(report, name, generator, role, "change"):
        first = before(report, figure) if pairs else None
        figures = (figure,) if first is None else (first, figure)
        found.append(_Line(role, figure.measure, figures, None if bound is None else bound.threshold))
    return found


def _frame(rows: Sequence[_Line], unit: Unit) -> Frame:
    if unit == "share":
        return Frame(0.0, 1.0, 0.0, 1.0)
    ends = [end for row in rows for f in row.figures for end in (f.value, f.low, f.high) if end is not None]
    limits = [row.limit for row in rows if row.limit is not None]
    if unit == "distance":
        return Frame(min(*ends, 0.0), max(1.05 * max(ends), 0.0), 0.0, 1.0)
    low = min(*ends, *limits, 0.0) if min(ends) < 0.5 else min(*ends, *limits)
    return Frame(low - 0.02, max(*ends, *limits, 1.0), 0.0, 1.0)


def _row(row: _Line, frame: Frame, several: bool) -> Html:
    rule = [el("line", x1=at, x2=at, y1="0", y2="100%", cls="rule") for at in map(frame.x, ticks(*_ends(frame), 5))]
    if row.limit is not None:
        rule.append(el("line", x1=frame.x(row.limit), x2=frame.x(row.limit), y1="0", y2="100%", cls="limit"))
    single = len(row.figures) == 1
    marks = [_mark(f, frame, 15 if single else (9 if f.state == "original" else 21)) for f in row.figures]
    strip = el("svg", *rule, *marks, cls="strip", width="100%", height="30", overflow="visible", aria_hidden="true")
    who = el("span", sentence(ROLES[row.role]), el("small", row.measure) if several else None, cls="who")
    return el("li", who, el("span", strip, cls="drawn"), el("span", *_values(row.figures), cls="values"))


def _values(figures: Sequence[Figure]) -> list[Html]:
    parts = []
    for figure in figures:
        interval = span(figure)
        small = None if interval is None else el("small", interval)
        word = el("span", STATES[figure.state], cls="word")
        parts.append(el("span", word, el("b", number(figure.value, figure.unit)), small, cls=_kind(figure)))
    return parts


def _mark(figure: Figure, frame: Frame, at: int) -> Html:
    kind, whisker = _kind(figure), NOTHING
    if figure.low is not None and figure.high is not None:
        whisker = el("line", x1=frame.x(figure.low), x2=frame.x(figure.high), y1=at, y2=at, cls=f"whisker {kind}")
    return join((whisker, el("circle", cx=frame.x(figure.value), cy=at, r="4.5", cls=f"dot {kind}")))


def _kind(figure: Figure) -> str:
    return "before" if figure.state == "original" else "after"


def _heads(rows: Sequence[_Line]) -> Html:
    """The headings of the numbers at the end of the rows; rows repeat them for screen readers and narrow screens."""
    pair = any(len(row.figures) > 1 for row in rows)
    words = (el("span", "before"), el("span", "after")) if pair else (el("span"), el("span", STATES["change"]))
    return el("div", el("span"), el("span"), el("span", *words, cls="values"), cls="heads", aria_hidden="true")


def _axis(frame: Frame, unit: Unit) -> Html:
    words = [
        el("text", f"{100 * v:g}\u00a0%" if unit == "share" else f"{v:g}", x=frame.x(v), y="13", cls="tick middle")
        for v in ticks(*_ends(frame), 5)
    ]
    picture = el("svg", *words, width="100%", height="18", overflow="visible", aria_hidden="true")
    return el("div", el("span"), el("span", picture, cls="drawn"), el("span"), cls="scale")


def _ends(frame: Frame) -> tuple[float, float]:
    return frame.left, frame.right
