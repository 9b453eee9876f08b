"""The attacks that were tried, the most successful first."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from ireu_cli.report import NO_ATTACK, Figure, Report
from ireu_cli.report_page.graphs.charts import relearning
from ireu_cli.report_page.markup import Html, code, el, fold, join, note
from ireu_cli.report_page.pick import attacked, before, criterion, generators
from ireu_cli.report_page.tables import Row, bar, table
from ireu_cli.report_page.words import counted, number, place, sentence, span

_SHOWN = 15
"""The number of rows that a table shows, besides attacks that win and the unchanged photo; weaker attacks fold away."""
_HEAD = ("attack", "with edit", "without edit", "judged by", "gate lets through", "gate beaten", "attempts")
_WORDS = (
    "Success is the share of attempts after which the target matches. If several recognisers judged, the row shows "
    "the one that matches most. An attack wins if it succeeds more often than its criterion allows; the mark in the "
    "bars shows that limit. The attack ",
    code(NO_ATTACK),
    " is the unchanged photo. A gate stands in front of an unedited generator and refuses photos that match a "
    "target. It is beaten if it lets a photo through and the picture drawn from that photo shows the target.",
)


@dataclass(frozen=True)
class _Attack:
    """One attack: success with the edit by every judge, the highest first, and without the edit by the first judge."""

    after: tuple[Figure, ...]
    first: Figure | None
    through: tuple[Figure, ...]
    beaten: Figure | None

    @property
    def name(self) -> str:
        return self.after[0].attack or ""


def attacks(report: Report) -> Html:
    """Tables of attacks, for each generator and for the features, and the charts of relearning."""
    blocks = join(_block(report, generator) for generator in [*generators(report), None])
    charts = relearning(report)
    if charts:
        words = (
            "The edited encoder was fine-tuned on photos of the target, to give the original's features again. As a "
            "control, it was fine-tuned on photos of another person: a rise in the control does not come from the "
            "target's photos."
        )
        charts = join((el("h3", "Relearning"), note(words), charts))
    return join((note(*_WORDS), blocks, charts)) if blocks else charts


def _block(report: Report, generator: str | None) -> Html:
    after = [f for f in attacked(report, "attack_success") if (f.generator, f.state) == (generator, "edited")]
    names = dict.fromkeys((f.attack, f.role) for f in after)
    tried = [_attack(report, [f for f in after if (f.attack, f.role) == name]) for name in names]
    tried.sort(key=lambda one: (-one.after[0].value, one.name == NO_ATTACK))
    found = criterion(report, "attacks", generator)
    allowed = None if found is None else found.threshold
    rows = [_row(report, one, allowed) for one in tried]
    columns = [n for n in range(len(_HEAD)) if any(row[n] for row in rows)]
    shown = [n < _SHOWN or one.name == NO_ATTACK or _wins(one, allowed) for n, one in enumerate(tried)]
    folded = [row for row, is_shown in zip(rows, shown, strict=True) if not is_shown]
    title = f"{place(generator)}: success of attacks, the most successful first"
    if allowed is not None:
        title += f"; at most {number(allowed, 'share')} allowed" if allowed < 1 else "; any success allowed"
    whole = table(title, *_narrow(list(compress(rows, shown)), columns))
    rest = table(f"{place(generator)}: weaker attacks", *_narrow(folded, columns))
    # With a limit of 1 every attack is allowed to win.
    none_wins = "" if allowed is None or allowed >= 1 else ", none of which wins"
    return join((whole, fold(counted(len(folded), "weaker attack", "weaker attacks") + none_wins, rest)))


def _wins(one: _Attack, allowed: float | None) -> bool:
    return allowed is not None and one.after[0].value > allowed and one.name != NO_ATTACK


def _narrow(rows: Sequence[Row], columns: Sequence[int]) -> tuple[list[str], list[tuple[None, list[Row]]], list[int]]:
    """Head, rows and numeric columns, without empty columns."""
    numeric = [position for position, n in enumerate(columns) if n >= 4]
    return [_HEAD[n] for n in columns], [(None, [[row[n] for n in columns] for row in rows])], numeric


def _attack(report: Report, after: Sequence[Figure]) -> _Attack:
    ordered = sorted(after, key=lambda f: -f.value)
    worst = ordered[0]
    through = [f for f in attacked(report, "gate_evaded") if f.attack == worst.attack]
    if worst.generator is not None:
        through = [f for f in through if f.measure == worst.measure]
    key = (worst.attack, worst.generator, worst.measure)
    beaten = [f for f in attacked(report, "gate_beaten") if (f.attack, f.generator, f.measure) == key]
    return _Attack(tuple(ordered), before(report, worst), tuple(through), beaten[0] if beaten else None)


def _row(report: Report, one: _Attack, allowed: float | None) -> Row:
    worst, others = one.after[0], one.after[1:]
    return (
        _about(report, one, allowed),
        _share(worst, "after", allowed),
        "" if one.first is None else _share(one.first, "before", None),
        join((worst.measure, *(el("small", f" {f.measure}: {number(f.value, f.unit)}", cls="line") for f in others))),
        join(_through(f, worst.measure) for f in one.through),
        "" if one.beaten is None else number(one.beaten.value, one.beaten.unit),
        join((str(worst.photos), el("small", f" {counted(worst.people, 'person', 'people')}", cls="line"))),
    )


def _about(report: Report, one: _Attack, allowed: float | None) -> Html:
    """The attack's name, whether it wins, and its meaning."""
    notes = [
        "the unchanged photo" if one.name == NO_ATTACK else None,
        "needs the files of an encoder: reported, not judged" if not report.is_judged(one.name) else None,
        report.definitions[one.name].text if one.name in report.definitions else None,
    ]
    mark = el("span", "wins", cls="tag wins") if _wins(one, allowed) else None
    return join(
        (el("span", one.name, cls="meaning"), " ", mark, *(el("small", sentence(text)) for text in notes if text))
    )


def _share(figure: Figure, state: str, allowed: float | None) -> Html:
    interval = span(figure)
    small = None if interval is None else el("small", f" {interval}")
    return join((el("span", number(figure.value, figure.unit), small, cls="value"), bar(figure.value, state, allowed)))


def _through(figure: Figure, judge: str) -> Html:
    by = None if figure.measure == judge else el("small", f" {figure.measure}")
    return el("span", number(figure.value, figure.unit), by, cls="value")
