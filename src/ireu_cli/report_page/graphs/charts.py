"""Charts: similarities and the threshold, the effect on everybody else, and relearning."""

from collections.abc import Sequence
from itertools import groupby

from ireu_cli.report import Curve, Figure, Kept, Report
from ireu_cli.report_page.graphs.plots import Frame, Points, area, chart, dots, key, level, line, upright
from ireu_cli.report_page.markup import NOTHING, Html, el, join, note
from ireu_cli.report_page.pick import at_rate, criterion, operating_point
from ireu_cli.report_page.words import STATES, counted, number, rate

_PAIRS = {"impostor": "area impostor", "genuine": "area genuine"}
_DRAWN = {
    ("target-unseen", "original"): ("line before", "drawn before, other photos"),
    ("target-seen", "original"): ("line before dashed", "drawn before, used photos"),
    ("target-unseen", "edited"): ("line after", "drawn after, other photos"),
    ("target-seen", "edited"): ("line after dashed", "drawn after, used photos"),
}


_FEW = 100
"""With fewer pictures, a distribution is drawn coarsely."""


def distributions(report: Report) -> Html:
    """Similarities between pictures and their person, one chart for each generator and recogniser."""
    drawn = [c for c in report.curves if c.kind == "drawn"]
    pairs = list(dict.fromkeys((c.generator, c.measure) for c in drawn))
    alone = [m for m in dict.fromkeys(c.measure for c in report.curves) if m not in {measure for _, measure in pairs}]
    charts = join(
        _distribution(report, generator, measure) for generator, measure in [*pairs, *((None, m) for m in alone)]
    )
    if not charts:
        return NOTHING
    return join(
        (
            el("h3", "How similar are the pictures and the person?"),
            note(
                "A picture to the right of the threshold counts as showing the person. After the edit, the targets' "
                "pictures should lie where photos of different people lie. The shaded band is the threshold's "
                "95\u00a0% interval."
            ),
            key([look for curve in report.curves for look in _looks(curve)]),
            el("div", charts, cls="charts"),
        )
    )


def kept_charts(report: Report) -> Html:
    """The change of each retained person, by their likeness to a target."""
    charts = join(_kept(report, kept) for kept in report.kept if kept.changes)
    if not charts:
        return NOTHING
    words = (
        "Each dot is a retained person. The further right it lies, the more they look like a target; the higher it "
        "lies, the less their pictures changed. If dots fall towards the right, the edit also hits people who look "
        "like a target."
    )
    legend = key([("dot after", "a retained person"), ("limit", "limit for their mean")])
    return join((el("h3", "What happened to everybody else?"), note(words), legend, el("div", charts, cls="charts")))


def relearning(report: Report) -> Html:
    """How fast a target comes back if the edited encoder is trained on their photos."""
    found = [f for f in at_rate(report, report.figures) if f.name == "relearned" and _steps(f) is not None]
    keys = list(dict.fromkeys((f.generator, f.measure) for f in found))
    charts = join(
        _relearned(generator, measure, [f for f in found if (f.generator, f.measure) == (generator, measure)])
        for generator, measure in keys
    )
    return join((key(sorted(_series(f) for f in found)), el("div", charts, cls="charts"))) if charts else NOTHING


def _distribution(report: Report, generator: str | None, measure: str) -> Html:
    curves = [c for c in report.curves if c.measure == measure and (c.kind != "drawn" or c.generator == generator)]
    lines = [(kind, words, points) for c in curves if (points := _points(c)) for kind, words in _looks(c)]
    if not lines:
        return NOTHING
    point = operating_point(report, measure)
    frame = _frame([points for *_, points in lines], None if point is None else point.threshold)
    lines.sort(key=lambda found: found[0].startswith("line"))
    marks = [(area if kind.startswith("area") else line)(frame, points, kind) for kind, _, points in lines]
    description = f"Distribution of similarities measured by {measure}"
    if point is not None:
        words = f"threshold {number(point.threshold, 'cosine')} at FMR {rate(point.false_match_rate)}"
        marks.append(upright(frame, point.threshold, words, (point.threshold_low, point.threshold_high)))
        description += f", {words}"
    means = "; ".join(f"{words}: mean {number(_mean(points), 'cosine')}" for _, words, points in lines)
    title = f"{'Photos' if generator is None else f'Generator {generator}'}, judged by {measure}"
    return chart(
        title, f"{description}. {means}.", frame, marks, across="similarity (cosine)",
        up="share of pairs, by similarity", heights="none",
    )  # fmt: skip


def _looks(curve: Curve) -> list[tuple[str, str]]:
    """The style and the words of a curve, if the chart shows it."""
    if curve.kind != "drawn":
        words = "different people" if curve.kind == "impostor" else "same person"
        return [(_PAIRS[curve.kind], words)]
    look = _DRAWN.get((curve.role or "", curve.state or ""))
    return [] if look is None else [look]


def _points(curve: Curve) -> Points:
    """The corners of a distribution with area 1, over the bins that are not empty.

    Bins are merged to about 2 n^(1/3) (the rule of Rice); otherwise few pictures would look like a comb. For very few
    pictures, bins are at least a tenth wide; otherwise a single bin would dwarf everything else.
    """
    filled = [n for n, count in enumerate(curve.counts) if count]
    if not filled:
        return []
    total, first, last = sum(curve.counts), filled[0], filled[-1]
    widest = round(0.1 / curve.width) if total < _FEW else 1
    merged = max(1, widest, round((last - first + 1) / (2 * total ** (1 / 3))))
    bins = [sum(curve.counts[n : n + merged]) for n in range(first, last + 1, merged)]
    start, width = curve.start + first * curve.width, curve.width * merged
    return [(start + (n - 0.5) * width, count / (total * width)) for n, count in enumerate([0, *bins, 0])]


def _frame(lines: Sequence[Points], threshold: float | None) -> Frame:
    across = [x for points in lines for x, _ in points] + ([] if threshold is None else [threshold])
    highest = max(y for points in lines for _, y in points)
    return Frame(min(across), max(across), 0.0, 1.15 * highest)


def _mean(points: Points) -> float:
    return sum(x * y for x, y in points) / sum(y for _, y in points)


def _kept(report: Report, kept: Kept) -> Html:
    values = [(likeness, similarity) for similarity, likeness in kept.changes]
    limit = criterion(report, "retained_id", kept.generator)
    heights = [y for _, y in values] + ([] if limit is None else [limit.threshold])
    low = min(heights)
    across = [x for x, _ in values]
    room = max(0.05 * (max(across) - min(across)), 0.01)
    frame = Frame(min(across) - room, max(across) + room, max(low - 0.1, -1.0) if low < 0.9 else 0.8, 1.02)
    marks = [dots(frame, values, "after")]
    if limit is not None:
        marks.append(level(frame, limit.threshold, f"mean at least {limit.threshold:g}"))
    title = f"Generator {kept.generator}, judged by {kept.measure}"
    description = (
        f"{counted(len(values), 'retained person', 'retained people')}; similarity of pictures before and after from "
        f"{number(min(y for _, y in values), 'cosine')} to {number(max(y for _, y in values), 'cosine')}."
    )
    return chart(
        title, description, frame, marks, across="likeness to the nearest target (cosine)",
        up="similarity of pictures, before and after",
    )  # fmt: skip


def _relearned(generator: str | None, measure: str, figures: Sequence[Figure]) -> Html:
    ordered = sorted(figures, key=lambda f: (_series(f), _steps(f) or 0))
    series = []
    for (kind, words), group in groupby(ordered, key=_series):
        series.append((kind, words, [(float(_steps(f) or 0), f.value) for f in group]))
    most = max(x for *_, points in series for x, _ in points)
    frame = Frame(0.0, most or 1.0, 0.0, 1.05)
    marks = [join((line(frame, points, kind), dots(frame, points, kind.split()[1]))) for kind, _, points in series]
    ends = "; ".join(f"{words}: {number(p[-1][1], 'share')} after {p[-1][0]:g} steps" for _, words, p in series)
    title = "Encoder" if generator is None else f"Generator {generator}"
    return chart(
        f"{title}, judged by {measure}", f"Share of the target's other photos that match. {ends}.", frame, marks,
        across="steps of fine-tuning", up="photos of the target that match", heights="share",
    )  # fmt: skip


def _series(figure: Figure) -> tuple[str, str]:
    """The class and the words of a figure's line."""
    who, kind = (
        ("the target", "line after") if figure.role != "retained" else ("another person (control)", "line before")
    )
    state = f"{STATES[figure.state]} the edit"
    return kind + (" dashed" if figure.state == "original" else ""), f"trained on {who}, {state}"


def _steps(figure: Figure) -> int | None:
    text = (figure.attack or "").removeprefix("relearn-")
    return int(text) if text.isdecimal() else None
