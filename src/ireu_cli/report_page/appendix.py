"""Groups of people, all figures, and what the figures mean."""

from collections.abc import Sequence

from ireu_cli.report import Figure, Report
from ireu_cli.report_page.markup import NOTHING, Html, code, el, fold, join
from ireu_cli.report_page.pick import at_rate
from ireu_cli.report_page.tables import Body, Row, table, with_span
from ireu_cli.report_page.words import ROLES, STATES, counted, number, place, rate

_HEAD = ("figure", "of", "condition", "measured by", "at rate", "before", "after", "change", "counted", "people")


def groups(report: Report) -> Html:
    """The results for the people of each label: one table a label, one column for each of its values."""
    found = [f for f in at_rate(report, report.figures) if f.group is not None]
    labels = list(dict.fromkeys(_label(f)[0] for f in found))
    return join(_group(label, [f for f in found if _label(f)[0] == label]) for label in labels)


def every_figure(report: Report) -> Html:
    """All figures: one table for the features, and one for each generator."""
    names = list(dict.fromkeys(f.generator for f in report.figures))
    return join(_figures(name, [f for f in report.figures if f.generator == name]) for name in names)


def definitions(report: Report) -> Html:
    """The meaning of each figure, its unit, and what it is taken over."""
    rests = {name: f"Unit: {d.unit}. Taken over: {d.reference}." for name, d in report.definitions.items()}
    pairs = join(
        el("div", el("dt", code(name)), el("dd", d.text), el("dd", rests[name], cls="small"))
        for name, d in report.definitions.items()
    )
    return fold(f"{len(report.definitions)} definitions", el("dl", pairs, cls="terms")) if pairs else NOTHING


def _label(figure: Figure) -> tuple[str, str]:
    column, _, value = (figure.group or "").partition(" = ")
    return column, value or column


def _group(label: str, figures: Sequence[Figure]) -> Html:
    values = list(dict.fromkeys(_label(f)[1] for f in figures))
    rows: dict[tuple[str | None, str, str, str, str], dict[str, Figure]] = {}
    for f in figures:
        rows.setdefault((f.generator, f.name, f.role, f.measure, f.state), {})[_label(f)[1]] = f
    bodies: list[Body] = [
        (place(name), [_across(key, found, values) for key, found in rows.items() if key[0] == name])
        for name in dict.fromkeys(key[0] for key in rows)
    ]
    head = ("figure", *values, "widest gap")
    return table(f"By {label}", head, bodies, range(1, len(head)))


def _across(key: tuple[str | None, str, str, str, str], found: dict[str, Figure], values: Sequence[str]) -> Row:
    _, name, role, measure, state = key
    numbers = [f.value for f in found.values()]
    unit = next(iter(found.values())).unit
    gap = number(max(numbers) - min(numbers), unit) if len(numbers) > 1 else ""
    what = join((el("span", name, cls="meaning"), el("small", f" {ROLES[role]}, {STATES[state]}; {measure}")))
    return (what, *(_cell(found[value]) if value in found else "" for value in values), gap)


def _cell(figure: Figure) -> Html:
    return join((with_span(figure), el("small", f" {counted(figure.people, 'person', 'people')}")))


def _figures(generator: str | None, figures: Sequence[Figure]) -> Html:
    rows: dict[tuple[str, str, str, str, str], list[Figure]] = {}
    for f in figures:
        at = "" if f.false_match_rate is None else rate(f.false_match_rate)
        rows.setdefault((f.name, f.role, _condition(f), f.measure, at), []).append(f)
    title = place(generator)
    shown = table(
        f"{title}: every figure", _HEAD, [(None, [_row(*k, found) for k, found in rows.items()])], (4, 5, 6, 7, 8, 9)
    )
    return fold(f"{title}: {counted(len(figures), 'figure', 'figures')}", shown)


def _condition(figure: Figure) -> str:
    parts = (("edit", figure.edit), ("attack", figure.attack), ("group", figure.group))
    return "; ".join(f"{word}: {value}" for word, value in parts if value is not None)


def _row(name: str, role: str, condition: str, measure: str, at: str, found: Sequence[Figure]) -> Row:
    states = [join(with_span(f) for f in found if f.state == state) for state in STATES]
    # Pictures without a face are left out of some figures, so the states may have different counts.
    counts = [
        " / ".join(dict.fromkeys(str(value) for value in values))
        for values in ([f.photos for f in found], [f.people for f in found])
    ]
    return (code(name), role, condition, measure, at, *states, *counts)
