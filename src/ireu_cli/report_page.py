"""The report as one self-contained page: no scripts, no network; pictures are part of the page."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from ireu_cli.report import Control, Criterion, Figure, Report

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --pass: #1a7f37; --fail: #cf222e; --inconclusive: #9a6700 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 span { padding: .1em .5em; border-radius: .3em; color: #fff }
.pass { background: var(--pass) } .fail { background: var(--fail) } .inconclusive { background: var(--inconclusive) }
div.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } code { word-break: break-all }
figure { margin: 1rem 0 } figure img { max-width: 100% } figcaption { font-size: .9rem }
"""

_HEAD = ("of", "figure", "original", "edited", "change", "counted", "people", "measure")

Picture = tuple[str, str, bytes]
"""A grid of pictures: generator, role, PNG."""


def page(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """Render the report as HTML.

    Args:
        report: what was found.
        pictures: grids to show, each with a photo, the picture drawn before and the one drawn after in a column.
    """
    criteria = [
        (_badge(c.outcome), _name(c), _number(c.found), f"{c.sense} {c.threshold:g}", escape(c.meaning))
        for c in report.criteria
    ]
    controls = [
        ("yes" if c.met else "<b>no</b>", _name(c), _number(c.found), f"{c.needed:g}", escape(c.meaning))
        for c in report.controls
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
        f"<h2>Not measured</h2><ul>{missing}</ul>{_shown(pictures)}{_figures(report.figures)}"
        f"<h2>Definitions</h2><dl>{definitions}</dl>"
        f"<h2>Subject</h2>{_table(('what', 'value'), subject)}</body></html>\n"
    )


def _figures(figures: Sequence[Figure]) -> str:
    """One table a generator, one row a figure, its states side by side."""
    parts = []
    for generator in dict.fromkeys(figure.generator for figure in figures):
        rows: dict[tuple[str, str, str], list[Figure]] = {}
        for figure in figures:
            if figure.generator == generator:
                rows.setdefault((figure.role, figure.name, figure.edit or ""), []).append(figure)
        title = "Figures on features" if generator is None else f"Figures on pictures of generator {escape(generator)}"
        parts.append(f"<h2>{title}</h2>{_table(_HEAD, [_row(*key, found) for key, found in rows.items()])}")
    return "".join(parts)


def _row(role: str, name: str, edit: str, found: Sequence[Figure]) -> tuple[str, ...]:
    states = {figure.state: _interval(figure) for figure in found}
    # Pictures without a face drop out of some figures, so the two states may rest on different counts.
    counts = [" / ".join(dict.fromkeys(str(value) for value in values))
              for values in ([f.photos for f in found], [f.people for f in found])]  # fmt: skip
    return (
        escape(role),
        escape(f"{name}: {edit}" if edit else name),
        *(states.get(state, "") for state in ("original", "edited", "change")),
        *counts,
        escape(found[0].measure),
    )


def _shown(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{b64encode(png).decode()}">'
        f"<figcaption>Generator {escape(generator)}, {escape(role)}</figcaption></figure>"
        for generator, role, png in pictures
    )
    return (
        "<h2>Pictures</h2><p>In each column: the photo, what is drawn from it with the original encoder, and with the "
        f"edited one. Same prompt and noise. These pictures show people.</p>{figures}"
    )


def _badge(outcome: str) -> str:
    return f'<b class="{outcome}" style="color:#fff;padding:0 .4em;border-radius:.3em">{outcome}</b>'


def _name(item: Control | Criterion) -> str:
    return escape(item.name if item.generator is None else f"{item.generator}: {item.name}")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _interval(figure: Figure) -> str:
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{interval}"
