"""Pick figures by what they are about."""

from collections.abc import Iterable
from math import isclose

from ireu_cli.report import Calibration, Criterion, Figure, OperatingPoint, Report


def configured_rate(report: Report) -> float | None:
    """The false-match rate of the verdict; None if the report does not state it."""
    section = report.provenance.plan.get("verify")
    planned = section.get("false_match_rate") if isinstance(section, dict) else None
    if isinstance(planned, int | float):
        return float(planned)
    return next((c.points[0].false_match_rate for c in report.recognisers if c.points), None)


def at_rate(report: Report, figures: Iterable[Figure]) -> list[Figure]:
    """Figures at the configured false-match rate, and those that do not depend on one."""
    wanted = configured_rate(report)
    return [
        figure
        for figure in figures
        if figure.false_match_rate is None or wanted is None or isclose(figure.false_match_rate, wanted)
    ]


def plain(report: Report, name: str, generator: str | None, role: str, state: str) -> list[Figure]:
    """Figures of that kind by every measure: of whole groups, without attack and without edit."""
    wanted = (name, generator, role, state, None, None, None)
    return [
        f
        for f in at_rate(report, report.figures)
        if (f.name, f.generator, f.role, f.state, f.attack, f.group, f.edit) == wanted
    ]


def before(report: Report, figure: Figure) -> Figure | None:
    """The same figure with the original encoder."""
    same = [f for f in report.figures if _key(f) == _key(figure) and f.state == "original"]
    return same[0] if same else None


def attacked(report: Report, name: str) -> list[Figure]:
    """Figures of that name under attacks, of whole groups."""
    return [f for f in at_rate(report, report.figures) if f.name == name and f.attack is not None and f.group is None]


def generators(report: Report) -> list[str]:
    """Names of the generators, in the report's order."""
    named = [f.generator for f in report.figures] + [c.generator for c in report.curves]
    named += [c.generator for c in report.criteria] + [kept.generator for kept in report.kept]
    return list(dict.fromkeys(name for name in named if name is not None))


def places(report: Report) -> list[str | None]:
    """The encoder (None), then the generators."""
    return [None, *generators(report)]


def criterion(report: Report, name: str, generator: str | None) -> Criterion | None:
    """The criterion of that name."""
    return next((c for c in report.criteria if (c.name, c.generator) == (name, generator)), None)


def calibration(report: Report, measure: str) -> Calibration | None:
    """The calibration of a recogniser."""
    return next((c for c in report.recognisers if c.recogniser == measure), None)


def operating_point(report: Report, measure: str) -> OperatingPoint | None:
    """The similarity above which a recogniser's photos match, at the configured rate."""
    found, wanted = calibration(report, measure), configured_rate(report)
    if found is None or not found.points:
        return None
    same = [p for p in found.points if wanted is not None and isclose(p.false_match_rate, wanted)]
    return same[0] if same else found.points[0]


def _key(f: Figure) -> tuple[object, ...]:
    return (f.name, f.role, f.measure, f.generator, f.edit, f.attack, f.group, f.false_match_rate)
