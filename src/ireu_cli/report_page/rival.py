"""The rival: a face-match gate in front of an unedited generator, beside the edit."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import isclose

from ireu_cli.report import NO_ATTACK, Figure, Report
from ireu_cli.report_page.markup import NOTHING, Html, el, join, note
from ireu_cli.report_page.pick import at_rate, attacked, before, generators, plain
from ireu_cli.report_page.tables import Body, Row, table
from ireu_cli.report_page.words import counted, number, place

_SEEN, _UNSEEN = "Photos that unlearning used and the gate enrolled", "Other photos of the targets"
_ATTACKED, _OTHERS = "Under the attack that works best against each", "Retained people who are affected"
_HEAD = ("pictures and judge", "gate", "edit", "better")


@dataclass(frozen=True)
class _Share:
    """A share that should be low, with its interval."""

    value: float
    low: float | None = None
    high: float | None = None
    words: str = ""


def rival(report: Report) -> Html:
    """The gate and the edit on the same photos, and which of them is better in each comparison."""
    if not any(f.name.startswith("gate_") and f.role != "null" for f in report.figures):
        return NOTHING
    duels = {
        _SEEN: _caught(report, "target-seen"),
        _UNSEEN: _caught(report, "target-unseen"),
        _ATTACKED: _attacked(report),
        _OTHERS: _refused(report),
    }
    found = [row[-1] for rows in duels.values() for row in rows]
    if not found:
        return NOTHING
    bodies: list[Body] = list(duels.items())
    return join(
        (
            note(
                "A gate compares each photo with the targets' photos and refuses it if they match; the generator "
                "behind it stays unchanged. In every row a lower share is better. For the gate it counts photos of "
                "targets that it lets through, and photos of retained people that it refuses. For the edit it counts "
                "pictures that still show the target, and pictures that no longer show the retained person."
            ),
            el("p", _sum(found), cls="sum"),
            table("Gate and edit side by side", _HEAD, bodies, (1, 2)),
            note(
                "A difference counts if the 95\u00a0% intervals do not overlap. A gate leaves everybody else's "
                "pictures unchanged, but it only protects where it is used: anybody who has the generator's files "
                "can leave it out."
            ),
        )
    )


def _caught(report: Report, role: str) -> list[Row]:
    rows = []
    gates = [f for f in at_rate(report, report.figures) if (f.name, f.role) == ("gate_caught", role)]
    for gate in gates:
        low, high = (None if end is None else 1 - end for end in (gate.high, gate.low))
        for generator in generators(report):
            for edit in _by(plain(report, "reidentified", generator, role, "edited"), gate.measure):
                rows.append(_row(gate.measure, generator, _Share(1 - gate.value, low, high), _of(edit)))
    return rows


def _attacked(report: Report) -> list[Row]:
    rows = []
    for generator in generators(report):
        gates = [f for f in attacked(report, "gate_beaten") if f.generator == generator and f.attack != NO_ATTACK]
        edits = [
            f
            for f in attacked(report, "attack_success")
            if (f.generator, f.state) == (generator, "edited") and f.attack != NO_ATTACK
        ]
        for measure in dict.fromkeys(f.measure for f in gates):
            # Count only attacks that were tried on both; otherwise one would face attacks that the other did not.
            both = {f.attack for f in _by(gates, measure)} & {f.attack for f in _by(edits, measure)}
            if both:
                gate, edit = (
                    _worst(f for f in _by(figures, measure) if f.attack in both) for figures in (gates, edits)
                )
                rows.append(_row(measure, generator, _of(gate, gate.attack), _of(edit, edit.attack)))
    return rows


def _refused(report: Report) -> list[Row]:
    rows = []
    for gate in (f for f in at_rate(report, report.figures) if f.name == "gate_false_refusal"):
        for generator in generators(report):
            for after in _by(plain(report, "reidentified", generator, "retained", "edited"), gate.measure):
                first = before(report, after)
                if first is not None:
                    lost = _Share(max(first.value - after.value, 0.0))
                    rows.append(_row(gate.measure, generator, _of(gate), lost))
    return rows


def _row(measure: str, generator: str, gate: _Share, edit: _Share) -> Row:
    who = join((el("span", place(generator), cls="meaning"), el("small", f" {measure}")))
    return (who, _cell(gate), _cell(edit), _better(gate, edit))


def _better(gate: _Share, edit: _Share) -> str:
    if isclose(gate.value, edit.value, abs_tol=1e-9):
        return "equal"
    name = "gate" if gate.value < edit.value else "edit"
    if gate.low is None or gate.high is None or edit.low is None or edit.high is None:
        return f"{name}, without intervals"
    apart = gate.high < edit.low or edit.high < gate.low
    return name if apart else "no clear difference"


def _sum(found: list[str]) -> str:
    counts = Counter(found)
    order = ("edit", "gate", "no clear difference", "equal", "edit, without intervals", "gate, without intervals")
    parts = "; ".join(f"{words} in {counts[words]}" for words in order if counts[words])
    return f"Better, in {counted(len(found), 'comparison', 'comparisons')}: {parts}."


def _cell(share: _Share) -> Html:
    interval = None
    if share.low is not None and share.high is not None:
        interval = el("small", f" {100 * share.low:.1f} to {100 * share.high:.1f}")
    words = el("small", f" {share.words}") if share.words else None
    return join((el("span", number(share.value, "share"), interval, cls="value"), words))


def _of(figure: Figure, words: str | None = None) -> _Share:
    return _Share(figure.value, figure.low, figure.high, words or "")


def _by(figures: Iterable[Figure], measure: str) -> list[Figure]:
    return [figure for figure in figures if figure.measure == measure]


def _worst(figures: Iterable[Figure]) -> Figure:
    return max(figures, key=lambda f: f.value)
