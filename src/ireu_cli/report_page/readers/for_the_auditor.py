"""One page for an auditor: the case and its dates, the verdict, what departs from the defaults, what was not tried."""

from ireu_cli.report import Report
from ireu_cli.report_page.document import document
from ireu_cli.report_page.judged import controls, criteria
from ireu_cli.report_page.markup import Html, el, join, note, section
from ireu_cli.report_page.record import erasure, limits, provenance
from ireu_cli.report_page.summary import departures, verdict
from ireu_cli.report_page.words import counted, listing


def audit_page(report: Report) -> str:
    """Render the page; `report.html` beside it has every figure."""
    parts = (
        ("record", "Case", erasure(report)),
        ("departures", "Departures from the defaults", _departures(report)),
        ("judged", "What was judged", join((criteria(report), controls(report)))),
        ("tried", "What was tried, and what was not", _tried(report)),
        ("provenance", "How to check it", join((_check(), provenance(report)))),
    )
    head = el("header", verdict(report))
    sections = join(section(key, title, content) for key, title, content in parts)
    return document(f"Audit: {report.outcome}", join((head, sections)), report)


def _departures(report: Report) -> Html:
    if report.departures is None:
        return note("This report was made by a version of ireu that did not record departures.")
    found = departures(report)
    return found or note("None: every limit, judge, attack and picture plan is the default.")


def _tried(report: Report) -> Html:
    judged = [name for name in report.record.attacks_tried if report.is_judged(name)]
    told = [name for name in report.record.attacks_tried if not report.is_judged(name)]
    words = []
    if judged:
        words.append(f"{counted(len(judged), 'attack', 'attacks')} counted in the verdict: {listing(judged)}.")
    if told:
        words.append(
            f"{counted(len(told), 'attack', 'attacks')} {'was' if len(told) == 1 else 'were'} reported and not judged, "
            f"because they need the files of an encoder or succeed against any edit: {listing(told)}."
        )
    if not words:
        words.append("No attack was tried.")
    return join((*(el("p", text) for text in words), limits(report)))


def _check() -> Html:
    return note(
        "Every file of this report has its sha256 in manifest.json beside it. You can measure again with the command "
        "below if you have the photos, the delta, the original encoder and the run folder."
    )
