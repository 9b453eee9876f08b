"""A report in one sentence, for somebody who decides and does not read tables."""

from collections.abc import Iterable, Sequence

from ireu_cli.report import NO_ATTACK, Control, Criterion, Report, Role
from ireu_cli.report_page.pick import attacked, before, criterion, plain
from ireu_cli.report_page.words import judged, listing, number, place, unit_of

_OPENINGS = {
    "pass": "This edit keeps every limit",
    "fail": "This edit misses its limits",
    "inconclusive": "This run cannot say whether the edit works",
}
STILL: dict[str, tuple[str, Role, str]] = {
    "reidentified_unseen": (
        "reidentified",
        "target-unseen",
        "{} of the pictures drawn from photos that unlearning never saw still show the person",
    ),
    "reidentified_seen": (
        "reidentified",
        "target-seen",
        "{} of the pictures drawn from photos that unlearning used still show the person",
    ),
    "match_unseen": (
        "match_rate",
        "target-unseen",
        "the encoder's features still show the person in {} of the photos that unlearning never saw",
    ),
    "match_seen": (
        "match_rate",
        "target-seen",
        "the encoder's features still show the person in {} of the photos that unlearning used",
    ),
}
"""The criteria on whether the person is still there, those that say most first: figure, role, and words."""
OTHERS = {
    "retained_psnr": "other people's pictures before and after are alike by {} PSNR",
    "retained_id": "other people's pictures before and after are alike by {}",
    "retained_ssim": "other people's pictures before and after are alike by {} SSIM",
    "retained_similarity": "other people's features before and after are alike by {}",
    "retained_change": "other people's features move by {} of what sets a person apart",
    "lookalike_id": "pictures of people who look like the person are alike by {}",
    "lookalike_similarity": "features of people who look like the person are alike by {}",
    "lookalike_change": "features of people who look like the person move by {} of what sets a person apart",
    "retained_faces": "{} of other people's pictures show a face",
    "adherence_drop": "{} of other people's pictures no longer follow the prompt",
    "null_change": "what the encoder says of an empty photo changes by {}",
}
"""The criteria on what others pay, those that say most first."""
_Clause = tuple[bool, str]
"""Whether it tells of a missed limit, and the words."""


def in_short(report: Report) -> str:
    """What a report says, in one sentence: what is left of the person, what others pay, which attack wins.

    Missed limits come first. A pass also says what it does not rest on.
    """
    if report.outcome == "inconclusive":
        told = _unmet(report.controls) or _unknown(report.criteria)
    else:
        clauses = [*_person(report), *_attacks(report), *_others(report)]
        told = [words for _, words in sorted(clauses, key=lambda clause: not clause[0])]
    told = told or [report.reason.rstrip(".")]
    _, _, rest = (report.standing or "").partition(" ")
    if report.outcome == "pass" and rest:
        told.append(f"and it passed {rest}")
    # Terminals and programs read it too, so a plain space has to do.
    return f"{_OPENINGS[report.outcome]}: {'; '.join(told)}.".replace("\u00a0", " ")


def still_found(report: Report) -> Criterion | None:
    """The criterion that says most about whether the person is still there.

    If limits are missed, it is the one that is missed by most. Else pictures come before features, photos never seen
    before used ones, and of several generators the one with the most matches counts.
    """
    known = [c for name in STILL for c in report.criteria if c.name == name and c.found is not None]
    missed = [c for c in known if c.outcome == "fail"]
    if missed:
        return max(missed, key=lambda c: c.found or 0.0)
    first = next((c.name for c in known), None)
    return max((c for c in known if c.name == first), key=lambda c: c.found or 0.0, default=None)


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
    figure, role, _ = STILL[found.name]
    after = plain(report, figure, found.generator, role, "edited")
    return max((first.value for one in after if (first := before(report, one)) is not None), default=None)


def people_measured(report: Report) -> int:
    """How many targets the figures of a report are of; 0 if there are none."""
    return max((f.people for f in report.figures if f.role in {"target-seen", "target-unseen"}), default=0)


def _person(report: Report) -> list[_Clause]:
    found = still_found(report)
    weak = [c for c in report.criteria if c.name == "delta_id" and c.outcome == "fail"]
    told: list[_Clause] = []
    if found is not None:
        first = share_before(report, found)
        was = "" if first is None else f" (before the edit {number(first, 'share')})"
        words = STILL[found.name][2].format(_found(found))
        still = f"{_where(found)}{words}{was}, {_allowed(found)}"
        told.append((found.outcome == "fail", still))
    if weak:
        where = listing([c.generator or "" for c in weak])
        told.append((True, f"generator {where}: pictures of the person change little more than anybody's"))
    faceless = [c for c in report.criteria if c.name == "target_faces" and c.outcome == "fail"]
    return told + [(True, f"{_where(c)}often no face is drawn instead of the person") for c in faceless]


def _attacks(report: Report) -> list[_Clause]:
    winning = winning_attacks(report)
    tried = {f.attack for f in attacked(report, "attack_success")} - {NO_ATTACK}
    counted = sum(name is not None and report.is_judged(name) for name in tried)
    if winning:
        shown = listing([*winning[:3], *([f"{len(winning) - 3} more"] if len(winning) > 3 else [])])
        many = f"1 of {counted} attacks brings" if len(winning) == 1 else f"{len(winning)} of {counted} attacks bring"
        return [(True, f"{many} the person back ({shown})")]
    known = [c for c in report.criteria if c.name == "attacks" and c.found is not None]
    if not known:
        return []
    worst = max(known, key=lambda c: c.found or 0.0)
    return [(False, f"the most successful of {counted} judged attacks wins {_found(worst)}, {_allowed(worst)}")]


def _others(report: Report) -> list[_Clause]:
    """Every missed limit on others, or the one figure that says most."""
    about = [c for name in OTHERS for c in report.criteria if c.name == name and c.found is not None]
    missed = [c for c in about if c.outcome == "fail"]
    kept = [min((c for c in about if c.name == about[0].name), key=lambda c: c.found or 0.0)] if about else []
    told = missed[:2] or kept
    more = [(True, f"{len(missed) - 2} more limits on other people are missed")] if len(missed) > 2 else []
    clauses = [(c.outcome == "fail", f"{_where(c)}{OTHERS[c.name].format(_found(c))}, {_allowed(c)}") for c in told]
    return [*clauses, *more]


def _unmet(controls: Iterable[Control]) -> list[str]:
    told = []
    for one in controls:
        if not one.met:
            unit = unit_of(one.name)
            found, needed = judged(one.found, unit, one.needed), judged(one.needed, unit)
            told.append(f"{_where(one)}{one.meaning}: {found}, and {needed} needed")
    return told


def _unknown(criteria: Sequence[Criterion]) -> list[str]:
    return [f"{_where(c)}{c.meaning} was not measured" for c in criteria if c.outcome == "inconclusive"]


def _found(one: Criterion) -> str:
    return judged(one.found, unit_of(one.name), one.threshold)


def _allowed(one: Criterion) -> str:
    limit = judged(one.threshold, unit_of(one.name))
    return f"{one.sense} {limit} {'needed' if one.sense == 'at least' else 'allowed'}"


def _where(one: Criterion | Control) -> str:
    return "" if one.generator is None else f"{place(one.generator)}: "
