"""One self-contained page around its content: nothing is loaded, and no script runs."""

from ireu_cli.report import Report
from ireu_cli.report_page.markup import Html, el
from ireu_cli.report_page.style import STYLE

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: only what the page itself holds."""


def document(title: str, content: Html, report: Report) -> str:
    """Build a page with the title, its content in `main`, and a footer that says what made it."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", Html(STYLE)),
    )
    foot = el("footer", el("p", f"ireu {report.provenance.tool_version}, report schema {report.schema_version}."))
    return f"<!doctype html>\n{el('html', head, el('body', el('main', content), foot), lang='en')}\n"
