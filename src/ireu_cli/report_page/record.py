"""The judges, what was not measured, the erasure record, and how to obtain the result again."""

import json

from ireu_cli.report import Calibration, OperatingPoint, Report
from ireu_cli.report_page.markup import NOTHING, Html, code, el, facts, fold, join, listed, note
from ireu_cli.report_page.tables import Body, Row, badge, table
from ireu_cli.report_page.words import number, rate

_NOT_STATED = "not stated"
_OPERATOR = (
    ("Case", "case_id"),
    ("Date of the request", "request_date"),
    ("Legal basis", "legal_basis"),
    ("Requester verified by", "requester_verified_by"),
    ("Photos deleted by", "photos_deleted_by"),
    ("Approved by", "approved_by"),
    ("Recipients of the encoder", "recipients"),
    ("Source of the encoder", "encoder_source"),
    ("Revision of the encoder", "encoder_revision"),
    ("Licence of the encoder", "encoder_licence"),
    ("Replaces case", "supersedes"),
    ("Replaced by case", "superseded_by"),
)
_TOOL = (
    ("People erased", "people"),
    ("Photos supplied", "photos_supplied"),
    ("Photos used to unlearn", "photos_used"),
    ("Systems that the edit reaches", "systems_covered"),
    ("Systems that it does not reach", "systems_missed"),
    ("Attacks tried", "attacks_tried"),
    ("Norm of the edit", "edit_norm"),
    ("Edited tensors", "edited_tensors"),
)
_LONG = 8
"""Longer lists fold away."""


def recognisers(report: Report) -> Html:
    """The recognisers' results on retained people, before they judged targets."""
    head = ("at FMR", "threshold", "true-accept rate", "pairs suffice")
    bodies: list[Body] = [(None, [_point(point) for point in found.points]) for found in report.recognisers]
    parts = []
    for found, body in zip(report.recognisers, bodies, strict=True):
        title = f"{found.recogniser}: operating points"
        parts.append(el("div", _about(found), table(title, head, [body], (1, 2)), cls="judge"))
    return join(parts)


def limits(report: Report) -> Html:
    """What was not measured, and what the result does not cover according to the record."""
    parts = [
        el("h3", "Not measured") if report.not_measured else None,
        listed(report.not_measured),
        el("h3", "Limits") if report.record.limits else None,
        listed(report.record.limits),
    ]
    return join(parts)


def erasure(report: Report) -> Html:
    """The erasure record: what the operator states, and what the tool knows."""
    return join(
        (
            el("h3", "Stated by the operator"),
            facts((words, _value(getattr(report.record, key), _NOT_STATED)) for words, key in _OPERATOR),
            el("h3", "Known to the tool"),
            facts((words, _value(getattr(report.record, key))) for words, key in _TOOL),
        )
    )


def provenance(report: Report) -> Html:
    """Digests, versions, the plan, and the command."""
    source, subject = report.provenance, report.subject
    rows = [
        ("Tool", f"ireu {source.tool_version}"),
        ("Seed", str(source.seed)),
        ("Original encoder", code(subject.original_encoder)),
        ("Edited encoder", code(subject.edited_encoder)),
        ("Manifest of the delta", code(subject.delta_manifest)),
        ("Tap", subject.tap),
        ("Run in", subject.served_dtype),
        ("Taps that the edit reaches", _value(subject.taps_reached)),
        ("Taps that it does not reach", _value(subject.taps_missed)),
        ("Plan", code(source.plan_digest)),
        *((name, code(digest)) for name, digest in source.digests.items()),
    ]
    plan = json.dumps(source.plan, indent=2, sort_keys=True, ensure_ascii=False)
    return join(
        (
            facts(rows),
            el("h3", "How to run it again"),
            _block(source.command),
            fold("The plan with all limits, as it was fixed before the run", _block(plan)),
            fold("Environment", facts(source.environment.items())),
        )
    )


def _about(found: Calibration) -> Html:
    mark = badge("pass", "usable") if found.usable else badge("fail", "not usable")
    why = None if found.why_not is None else note(found.why_not)
    means = [
        None if value is None else f"mean similarity of {words} {number(value, 'cosine')}"
        for words, value in (("one person's photos", found.genuine_mean), ("different people's", found.impostor_mean))
    ]
    counts = f"{found.photos} photos of {found.people} retained people"
    needed = f"true-accept rate needed: {number(found.needed, 'share')}"
    words = note("; ".join([counts, needed, *(mean for mean in means if mean)]) + ".")
    return join(
        (el("h3", found.recogniser, mark), why, words, el("p", "Fingerprint ", code(found.fingerprint), cls="small"))
    )


def _point(point: OperatingPoint) -> Row:
    return (
        rate(point.false_match_rate),
        _with_ends(number(point.threshold, "cosine"), point.threshold_low, point.threshold_high, 1, 3),
        _with_ends(number(point.true_accept_rate, "share"), point.true_accept_low, point.true_accept_high, 100, 1),
        "yes" if point.resolved else "no",
    )


def _with_ends(words: str, low: float | None, high: float | None, scale: int, digits: int) -> Html:
    ends = None
    if low is not None and high is not None:
        ends = el("small", f" {scale * low:.{digits}f} to {scale * high:.{digits}f}")
    return el("span", words, ends, cls="value")


def _value(value: object, missing: str = "none") -> Html:
    if value is None or value == () or value == "":
        return el("span", missing, cls="empty")
    if isinstance(value, tuple):
        if len(value) <= _LONG:
            return join((", ".join(str(item) for item in value),))
        return fold(f"{len(value)} entries", listed(str(item) for item in value))
    return join((f"{value:.4g}" if isinstance(value, float) else str(value),))


def _block(text: str) -> Html:
    if not text:
        return NOTHING
    return el("pre", el("code", text), tabindex="0")
