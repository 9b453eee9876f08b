"""The page as a whole: its parts in order."""

from collections.abc import Sequence

from ireu_cli.report import Report
from ireu_cli.report_page.appendix import definitions, every_figure, groups
from ireu_cli.report_page.attacks import attacks
from ireu_cli.report_page.document import document
from ireu_cli.report_page.graphs.charts import distributions, kept_charts
from ireu_cli.report_page.graphs.forest import forest
from ireu_cli.report_page.judged import controls, criteria
from ireu_cli.report_page.markup import NOTHING, Html, el, join, section
from ireu_cli.report_page.pictures import Picture, gallery
from ireu_cli.report_page.record import erasure, limits, provenance, recognisers
from ireu_cli.report_page.rival import rival
from ireu_cli.report_page.summary import departures, next_steps, tiles, verdict, verified


def page(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """Render the report as HTML.

    Args:
        report: the report.
        pictures: grids to show; each column has a photo, the picture before and the picture after.
    """
    parts = _parts(report, pictures)
    sections = join(section(key, title, content) for key, title, content in parts)
    top = (verdict(report), next_steps(report), departures(report), verified(report), tiles(report), _contents(parts))
    return document(f"Verification: {report.outcome}", join((el("header", *top), sections)), report)


def _parts(report: Report, pictures: Sequence[Picture]) -> list[tuple[str, str, Html]]:
    """Key, title and content of each section that has content."""
    parts = [
        ("pictures", "Pictures", gallery(report, pictures)),
        ("charts", "Charts", join((distributions(report), kept_charts(report), forest(report)))),
        ("criteria", "Criteria", criteria(report)),
        ("controls", "Controls", controls(report)),
        ("attacks", "Attacks", attacks(report)),
        ("gate", "The edit beside a face-match gate", rival(report)),
        ("groups", "Groups of retained people", groups(report)),
        ("figures", "All figures", every_figure(report)),
        ("definitions", "Definitions", definitions(report)),
        ("recognisers", "Recognisers", recognisers(report)),
        ("limits", "What this report does not say", limits(report)),
        ("record", "Erasure record", erasure(report)),
        ("provenance", "Provenance", provenance(report)),
    ]
    return [part for part in parts if part[2]]


def _contents(parts: Sequence[tuple[str, str, Html]]) -> Html:
    links = join(el("li", el("a", title, href=f"#{key}")) for key, title, _ in parts)
    return el("nav", el("ol", links), cls="contents", aria_label="Contents") if links else NOTHING
