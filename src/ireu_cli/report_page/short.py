"""A report in one sentence, for somebody who decides and does not read tables."""

from collections.abc import Iterable, Sequence

from ireu_cli.report import NO_ATTACK, Control, Criterion, Report
from ireu_cli.report_page.pick import attacked, before, criterion, plain
from ireu_cli.report_page.words import judged, listing, number, place, unit_of

_OPENINGS = {
    "pass": "This edit keeps every limit",
    "fail": "This edit misses its limits",
    "inconclusive": "This run cannot say whether the edit works",
}
_SHOWN = (
    ("reidentified_unseen", "reidentified", "target-unseen", "pictures drawn from photos that unlearning never saw"),
    ("reidentified_seen", "reidentified", "target-seen", "pictures drawn from photos that unlearning used"),
    ("match_unseen", "match_rate", "target-unseen", "photos that unlearning never saw"),
    ("match_seen", "match_rate", "target-seen", "photos that unlearning used"),
)
"""Criteria on whether the person is still there: name, figure, role, and the photos or pictures that they are about."""
_OTHERS = ("retained_", "lookalike_")


def in_short(report: Report) -> str:
    """What a report says, in one sentence: what is left of the person, what others pay, which attack wins.

    Missed limits come first. A pass also says what it does not rest on.
    """
    if report.outcome == "inconclusive":
        told = _unmet(report.controls) or _unknown(report.criteria) or [report.reason.rstrip(".")]
    else:
        clauses = [*_person(report), *_attacks(report), *_others(report), *_pictures(report)]
        told = [words for _, words in sorted(clauses, key=lambda clause: not clause[0])]
    if report.outcome == "pass" and report.gaps:
        _, _, rest = (report.standing or "").partition(" ")
        told.append(f"and it passed {rest}")
    # Terminals and programs read it too, so a plain space has to do.
    return f"{_OPENINGS[report.outcome]}{': ' if told else ''}{'; '.join(told)}.".replace("\u00a0", " ")


def still_found(report: Report) -> tuple[Criterion, str] | None:
    """The criterion that says most about whether the person is still there, and what it counts.

    A missed one comes first, then pictures before features, then photos never seen before used ones. Of several
    generators, the one with the most matches counts.
    """
    found = [(c, what) for name, _, _, what in _SHOWN for c in _named(report, name) if c.found is not None]
    pictures = [one for one in found if one[0].generator is not None] or found
    missed = [one for one in found if one[0].outcome == "fail"]
    ordered = sorted(missed or pictures[:], key=lambda one: -(one[0].found or 0.0))
    unseen = [one for one in ordered if one[0].name.endswith("_unseen")]
    return next(iter(unseen or ordered), None)


def winning_attacks(report: Report) -> tuple[str, ...]:
    """The names of judged attacks that win more often than allowed, the most successful first."""
    best: dict[str, float] = {}
    for one in attacked(report, "attack_success"):
        limit = criterion(report, "attacks", one.generator)
        name = one.attack or ""
        counts = one.state == "edited" and name != NO_ATTACK and report.is_judged(name)
        if counts and limit is not None and one.value > limit.threshold:
            best[name] = max(best.get(name, 0.0), one.value)
    return tuple(sorted(best, key=lambda name: -best[name]))


def share_before(report: Report, found: Criterion) -> float | None:
    """The share that a criterion on the person counts, with the original encoder; of several judges, the highest."""
    for name, figure, role, _ in _SHOWN:
        if name == found.name:
            after = plain(report, figure, found.generator, role, "edited")
            original = [first.value for one in after if (first := before(report, one)) is not None]
            return max(original, default=None)
    return None


_Clause = tuple[bool, str]
"""Whether it tells of a missed limit, and the words."""


def _person(report: Report) -> list[_Clause]:
    told = still_found(report)
    if told is None:
        return []
    found, what = told
    first = share_before(report, found)
    was = "" if first is None else f" (before the edit {number(first, 'share')})"
    still = f"{_found(found)} of the {what} still show the person{was}, {_allowed(found)}"
    weak = [c for c in _named(report, "delta_id") if c.outcome == "fail"]
    if weak:
        where = listing([c.generator or "" for c in weak])
        still += f"; pictures of the person hardly change more than anybody's (generator {where})"
    return [(found.outcome == "fail" or bool(weak), f"{_where(found)}{still}")]


def _attacks(report: Report) -> list[_Clause]:
    winning = winning_attacks(report)
    tried = {f.attack for f in attacked(report, "attack_success")} - {NO_ATTACK}
    judged_ones = sorted(name for name in tried if name is not None and report.is_judged(name))
    if winning:
        shown = listing([*winning[:3], *([f"{len(winning) - 3} more"] if len(winning) > 3 else [])])
        many = "an attack brings" if len(winning) == 1 else f"{len(winning)} of {len(judged_ones)} attacks bring"
        return [(True, f"{many} the person back ({shown})")]
    return [(False, f"none of {len(judged_ones)} judged attacks brings the person back")] if judged_ones else []


def _others(report: Report) -> list[_Clause]:
    about = [c for c in report.criteria if c.name.startswith(_OTHERS) and c.name != "retained_faces"]
    missed = [c for c in about if c.outcome == "fail"]
    if missed:
        worst = missed[0]
        words = f"other people pay for it: {_where(worst)}{worst.meaning} is {_found(worst)}, {_allowed(worst)}"
        return [(True, words)]
    kept = [c for c in about if c.name == "retained_psnr" and c.found is not None]
    if kept:
        least = min(kept, key=lambda c: c.found or 0.0)
        return [(False, f"other people's pictures stay as they were ({_found(least)} PSNR or more)")]
    return [(False, "other people's features stay as they were")] if about else []


def _pictures(report: Report) -> list[_Clause]:
    """Faults that neither the person nor others pay for: no face, an empty photo that changes, a prompt unheard."""
    words = {
        "target_faces": "instead of the person often no face is drawn at all",
        "retained_faces": "other people's pictures often show no face",
        "adherence_drop": "other people's pictures follow the prompt less",
        "null_change": "what the encoder says of an empty photo changes",
    }
    return [(True, _where(c) + words[c.name]) for c in report.criteria if c.outcome == "fail" and c.name in words]


def _unmet(controls: Iterable[Control]) -> list[str]:
    told = []
    for one in controls:
        if not one.met:
            unit = unit_of(one.name)
            found, needed = judged(one.found, unit, one.needed), judged(one.needed, unit)
            told.append(f"{_where(one)}{one.meaning}: {found}, and {needed} needed")
    return told


def _unknown(criteria: Iterable[Criterion]) -> list[str]:
    return [f"{_where(c)}{c.meaning} was not measured" for c in criteria if c.outcome == "inconclusive"]


def _named(report: Report, name: str) -> Sequence[Criterion]:
    return [c for c in report.criteria if c.name == name]


def _found(one: Criterion) -> str:
    return judged(one.found, unit_of(one.name), one.threshold)


def _allowed(one: Criterion) -> str:
    limit = judged(one.threshold, unit_of(one.name))
    return f"{one.sense} {limit} {'needed' if one.sense == 'at least' else 'allowed'}"


def _where(one: Criterion | Control) -> str:
    return "" if one.generator is None else f"{place(one.generator)}: "
