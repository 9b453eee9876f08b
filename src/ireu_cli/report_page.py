"""The report as one self-contained page: no scripts, no network, no photos."""

from collections.abc import Iterable
from html import escape

from ireu_cli.report import Figure, Report

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --pass: #1a7f37; --fail: #cf222e; --inconclusive: #9a6700 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 span { padding: .1em .5em; border-radius: .3em; color: #fff }
.pass { background: var(--pass) } .fail { background: var(--fail) } .inconclusive { background: var(--inconclusive) }
div.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } code { word-break: break-all }
"""


def page(report: Report) -> str:
    """Render the report as HTML."""
    criteria = [
        (
            f'<b class="{c.outcome}" style="color:#fff;padding:0 .4em;border-radius:.3em">{c.outcome}</b>',
            escape(c.name),
            _number(c.found),
            f"{c.sense} {c.threshold:g}",
            escape(c.meaning),
        )
        for c in report.criteria
    ]
    controls = [
        ("yes" if c.met else "<b>no</b>", escape(c.name), _number(c.found), f"{c.needed:g}", escape(c.meaning))
        for c in report.controls
    ]
    figures = [
        (escape(f.role), escape(f.name), f.state, _interval(f), str(f.photos), str(f.people), escape(f.measure))
        for f in report.figures
    ]
    subject = [
        (escape(key), f"<code>{escape(str(value))}</code>") for key, value in report.subject.model_dump().items()
    ]
    definitions = "".join(
        f"<dt><b>{escape(name)}</b></dt><dd>{escape(text)}</dd>" for name, text in report.definitions.items()
    )
    missing = "".join(f"<li>{escape(text)}</li>" for text in report.not_measured)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>ireu verify: {report.outcome}</title><style>{_STYLE}</style></head><body>"
        f'<h1>Verification: <span class="{report.outcome}">{report.outcome}</span></h1><p>{escape(report.reason)}</p>'
        f"<h2>Thresholds</h2>{_table(('outcome', 'criterion', 'found', 'allowed', 'meaning'), criteria)}"
        f"<h2>Controls</h2>{_table(('met', 'control', 'found', 'needed', 'meaning'), controls)}"
        f"<h2>Not measured</h2><ul>{missing}</ul>"
        f"<h2>Figures</h2>{_table(('of', 'figure', 'state', 'value [95 %]', 'photos', 'people', 'measure'), figures)}"
        f"<h2>Definitions</h2><dl>{definitions}</dl>"
        f"<h2>Subject</h2>{_table(('what', 'value'), subject)}</body></html>\n"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _interval(figure: Figure) -> str:
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{interval}"
