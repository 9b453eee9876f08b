"""Criteria and controls: the limits, and the results."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ireu_cli.report import Control, Criterion, Report
from ireu_cli.report_page.markup import Html, code, el, join
from ireu_cli.report_page.tables import Body, Row, badge, table
from ireu_cli.report_page.words import judged, place, sentence, unit_of

_Item = TypeVar("_Item", Control, Criterion)


def criteria(report: Report) -> Html:
    """The limits, fixed before the run, and the results."""
    head = ("criterion", "outcome", "found", "allowed")
    return table("Limits, fixed before the run", head, _bodies(report.criteria, _criterion), (2, 3))


def controls(report: Report) -> Html:
    """The conditions that a conclusion needs."""
    head = ("control", "met", "found", "needed")
    return table("Conditions that a conclusion needs", head, _bodies(report.controls, _control), (2, 3))


def _bodies(items: Sequence[_Item], row: Callable[[_Item], Row]) -> list[Body]:
    names = list(dict.fromkeys(item.generator for item in items))
    return [(place(name), [row(item) for item in items if item.generator == name]) for name in names]


def _criterion(item: Criterion) -> Row:
    unit = unit_of(item.name)
    allowed = f"{item.sense} {judged(item.threshold, unit)}"
    return (_meaning(item), badge(item.outcome), _phrase(judged(item.found, unit, item.threshold)), _phrase(allowed))


def _control(item: Control) -> Row:
    unit = unit_of(item.name)
    met = badge("pass", "yes") if item.met else badge("fail", "no")
    return (
        _meaning(item),
        met,
        _phrase(judged(item.found, unit, item.needed)),
        _phrase(_needed(item, judged(item.needed, unit))),
    )


def _needed(item: Control, words: str) -> str:
    return f"more than {words}" if item.name == "no_op_fails" else f"at least {words}"


def _phrase(words: str) -> Html:
    """Words that may wrap, although they stand among numbers."""
    return el("span", words, cls="phrase")


def _meaning(item: Control | Criterion) -> Html:
    return join((el("span", sentence(item.meaning), cls="meaning"), " ", el("small", code(item.name))))
