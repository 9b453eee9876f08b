"""Axes and marks of charts, as SVG that keeps its text size at every width: positions are percentages of the plot."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ireu_cli.report_page.markup import NOTHING, Html, el, join

_LEFT, _WIDTH = 13, 84
"""Margin on the left, and width of the plot, in percent."""
_TOP, _HEIGHT, _BELOW = 26, 190, 44
"""The margin above, the height of the plot, and the margin below, in pixels."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Frame:
    """The ranges of a chart's axes."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> str:
        """Horizontal position of a value, as a percentage."""
        return f"{_share(value, self.left, self.right):.2f}%"

    def y(self, value: float) -> str:
        """Position of a value from the top, as a percentage."""
        return f"{100 - _share(value, self.bottom, self.top):.2f}%"

    def points(self, values: Points) -> str:
        """Corners of a line on a square of 100."""
        return " ".join(f"{self.x(x)[:-1]},{self.y(y)[:-1]}" for x, y in values)


def chart(
    title: str,
    description: str,
    frame: Frame,
    marks: Iterable[Html],
    *,
    across: str,
    up: str,
    heights: str = "plain",
) -> Html:
    """Build a chart with its title and axes.

    Args:
        title: heading of the chart.
        description: what the chart shows, in words, for readers who cannot see it.
        frame: ranges of the axes.
        marks: the marks to draw.
        across: label of the horizontal axis.
        up: label of the vertical axis.
        heights: "plain" or "share" for the numbers on the vertical axis, "none" for no numbers.
    """
    inner = el(
        "svg", _grid(frame, heights), *marks, x=f"{_LEFT}%", y=_TOP, width=f"{_WIDTH}%", height=_HEIGHT,
        overflow="visible",
    )  # fmt: skip
    middle, low = f"{_LEFT + _WIDTH / 2}%", _TOP + _HEIGHT + _BELOW - 8
    words = (
        el("text", up, x="0", y="13", cls="axis"),
        el("text", across, x=middle, y=low, cls="axis middle"),
    )
    picture = el(
        "svg", inner, *words, cls="plot", width="100%", height=_TOP + _HEIGHT + _BELOW, role="img",
        aria_label=description,
    )  # fmt: skip
    return el("figure", el("figcaption", title), picture, cls="chart")


def key(legend: Sequence[tuple[str, str]]) -> Html:
    """The legend of charts: (class of a mark, words)."""
    entries = dict.fromkeys(legend)
    return el("ul", *(el("li", _swatch(kind), words) for kind, words in entries), cls="legend") if entries else NOTHING


def line(frame: Frame, values: Points, kind: str) -> Html:
    """A line through points; `kind` holds the classes of a line."""
    return _stretched(el("polyline", points=frame.points(values), cls=kind))


def area(frame: Frame, values: Points, kind: str) -> Html:
    """A filled outline over the axis; `kind` holds the classes of an area."""
    floor = ((values[0][0], frame.bottom), *values, (values[-1][0], frame.bottom))
    return _stretched(el("polygon", points=frame.points(floor), cls=kind))


def dots(frame: Frame, values: Points, kind: str) -> Html:
    """A dot for each point."""
    return join(el("circle", cx=frame.x(x), cy=frame.y(y), r="4", cls=f"dot {kind}") for x, y in values)


def upright(frame: Frame, at: float, words: str, band: tuple[float | None, float | None] = (None, None)) -> Html:
    """A limit on the horizontal axis, with its interval behind it."""
    low, high = band
    shade = NOTHING
    if low is not None and high is not None:
        low, high = max(low, frame.left), min(high, frame.right)
        wide = f"{max(_share(high, frame.left, frame.right) - _share(low, frame.left, frame.right), 0):.2f}%"
        shade = el("rect", x=frame.x(low), y="0", width=wide, height="100%", cls="band")
    far = _share(at, frame.left, frame.right) > 50
    shift = {"dx": "-6", "text_anchor": "end"} if far else {"dx": "6"}
    stroke = el("line", x1=frame.x(at), x2=frame.x(at), y1="0", y2="100%", cls="limit")
    return join((shade, stroke, el("text", words, x=frame.x(at), y="12", cls="said", **shift)))


def level(frame: Frame, at: float, words: str) -> Html:
    """A limit on the vertical axis."""
    stroke = el("line", x1="0", x2="100%", y1=frame.y(at), y2=frame.y(at), cls="limit")
    below = "-6" if _share(at, frame.bottom, frame.top) < 90 else "16"
    return join((stroke, el("text", words, x="4", y=frame.y(at), dy=below, cls="said")))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between two ends, at most a given number."""
    width = (high - low) / max(most - 1, 1)
    power: float = 10.0 ** math.floor(math.log10(width)) if width > 0 else 1.0
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= width * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(frame: Frame, heights: str) -> Html:
    parts = [el("line", x1="0", x2="100%", y1="100%", y2="100%", cls="base")]
    for value in ticks(frame.left, frame.right, 5):
        at = frame.x(value)
        parts.append(el("line", x1=at, x2=at, y1="100%", y2="100%", cls="tick"))
        parts.append(el("text", _plain(value), x=at, y="100%", dy="17", cls="tick middle"))
    for value in ticks(frame.bottom, frame.top, 5) if heights != "none" else []:
        at = frame.y(value)
        parts.append(el("line", x1="0", x2="100%", y1=at, y2=at, cls="rule"))
        words = f"{100 * value:g}\u00a0%" if heights == "share" else _plain(value)
        parts.append(el("text", words, x="-6", y=at, dy="4", cls="tick", text_anchor="end"))
    return join(parts)


def _swatch(kind: str) -> Html:
    """The symbol of a line, an area or a dot in a legend."""
    shape = kind.split()[0]
    if shape == "dot":
        mark = el("circle", cx="14", cy="7", r="4", cls=kind)
    elif shape == "area":
        mark = el("rect", x="1", y="2", width="26", height="10", cls=kind)
    else:
        mark = el("line", x1="1", x2="27", y1="7", y2="7", cls=kind)
    return el("svg", mark, width="28", height="14", aria_hidden="true")


def _stretched(shape: Html) -> Html:
    return el("svg", shape, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%")


def _share(value: float, low: float, high: float) -> float:
    return 100 * (value - low) / (high - low) if high > low else 50.0


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "\u2212")
