"""The top of the page: the outcome, the reason, the most important figures, and what was verified."""

from ireu_cli.report import NO_ATTACK, Figure, Outcome, Report
from ireu_cli.report_page.markup import NOTHING, Html, code, el, join
from ireu_cli.report_page.pick import attacked, before, criterion, generators, plain
from ireu_cli.report_page.tables import icon, table
from ireu_cli.report_page.words import ROLES, counted, listing, number, place, sentence, span

_SHORT = 12
"""The number of characters of a digest in running text."""


def verdict(report: Report) -> Html:
    """The outcome as a word and a symbol, what it does not rest on, and the reason."""
    met = sum(c.met for c in report.controls)
    passed = sum(c.outcome == "pass" for c in report.criteria)
    tally = [
        f"{met} of {counted(len(report.controls), 'control', 'controls')} met" if report.controls else None,
        f"{passed} of {counted(len(report.criteria), 'criterion', 'criteria')} met" if report.criteria else None,
    ]
    _, _, rest = (report.standing or "").partition(" ")
    chips = join(el("li", words) for words in tally if words)
    heading = el(
        "h1",
        el("span", "Verification of an erasure", cls="kicker"),
        icon(report.outcome),
        el("span", sentence(report.outcome), cls="word"),
        el("span", rest, cls="rest") if rest else None,
    )
    short = None if report.summary is None else el("p", report.summary, cls="reason")
    reason = el("p", report.reason, cls="reason" if short is None else "small")
    why = el("div", short, reason, el("ul", chips, cls="tally") if chips else NOTHING)
    # A pass that leaves something out must not be mistaken for a full pass.
    tone = "inconclusive" if report.outcome == "pass" and report.gaps else report.outcome
    return el("div", heading, why, cls=f"verdict {tone}")


def next_steps(report: Report) -> Html:
    """What to do next, in the order in which to try it."""
    steps = join(el("li", step) for step in report.next_steps)
    return el("section", el("h2", "What to do next"), el("ol", steps), cls="card") if steps else NOTHING


def departures(report: Report) -> Html:
    """Settings that are not the default, weaker ones first: a verdict depends on them."""
    order = ("weaker", "no order", "stronger")
    found = sorted(report.departures or (), key=lambda one: order.index(one.effect))
    words = {"weaker": "weaker than the default", "stronger": "stronger than the default", "no order": ""}
    rows = [(code(d.key), d.words, d.usual, d.source, words[d.effect]) for d in found]
    head = ("setting", "in this run", "default", "set by", "")
    return table("Settings that are not the default", head, [(None, rows)])


def verified(report: Report) -> Html:
    """What was verified, in plain sentences."""
    subject, record = report.subject, report.record
    encoders = (
        "This report compares two versions of one image encoder, the original (",
        code(subject.original_encoder[:_SHORT]),
        ") and the edited one (",
        code(subject.edited_encoder[:_SHORT]),
        "). ",
    )
    names = generators(report)
    if report.level == "generator" and names:
        drew = f"Generator{'s' if len(names) > 1 else ''} {listing(names)} drew"
        how = f"{drew} with each of them, from the same photos, prompts and noise. "
    else:
        how = "Their features for the same photos were compared; no pictures were judged. "
    judges = [c.recogniser for c in report.recognisers if c.usable]
    judged = f"The people shown were judged by {listing(judges)}. " if judges else ""
    about = (
        f"The erasure concerns {counted(record.people, 'person', 'people')}. Of {record.photos_supplied} photos "
        f"supplied, unlearning used {record.photos_used}. "
    )
    if report.copies:
        about += (
            f"{counted(report.copies, 'photo was', 'photos were')} left out as copies of used photos, because "
            "they cannot count as photos that unlearning never saw. "
        )
    served = f"The edited encoder was read at {subject.tap} and run in {subject.served_dtype}."
    return el("p", *encoders, how, judged, about, served, cls="lead")


def tiles(report: Report) -> Html:
    """Key numbers of each generator, and of the encoder's features."""
    cards = []
    for generator in [*generators(report), None]:
        found = [tile for tile in _tiles(report, generator) if tile]
        if found:
            cards.append(el("section", el("h2", place(generator)), el("dl", *found), cls="card"))
    return el("div", *cards, cls="cards") if cards else NOTHING


def _tiles(report: Report, generator: str | None) -> list[Html]:
    if generator is None:
        return [
            _matched(report, None, "match_rate", "match", "Photos that still match"),
            _single(
                report, None, "feature_cosine", "retained", "retained_similarity", "Retained people's features kept"
            ),
            _attack(report, None),
        ]
    return [
        _matched(report, generator, "reidentified", "reidentified", "Re-identified"),
        _single(report, generator, "psnr", "retained", "retained_psnr", "Retained people's pictures, PSNR"),
        _single(
            report,
            generator,
            "delta_id",
            "target",
            "delta_id",
            "How much more the targets changed than others (delta_id)",
        ),
        _attack(report, generator),
    ]


def _matched(report: Report, generator: str | None, name: str, judged: str, words: str) -> Html:
    """The worst recogniser's share before and after, for photos that unlearning did not use, if there are any."""
    for role, key, which in (
        ("target-unseen", f"{judged}_unseen", "other photos"),
        ("target-seen", f"{judged}_seen", "used photos"),
    ):
        found = plain(report, name, generator, role, "edited")
        if found:
            worst = max(found, key=lambda f: f.value)
            first = before(report, worst)
            return _tile(f"{words}, {which}", worst, first, _outcome(report, key, generator), len(found))
    return NOTHING


def _single(report: Report, generator: str | None, name: str, role: str, key: str, words: str) -> Html:
    """The lowest of the recognisers; for targets, the lower of used and other photos, as in the criterion."""
    roles = ("target-unseen", "target-seen") if role == "target" else (role,)
    found = [figure for one in roles for figure in plain(report, name, generator, one, "change")]
    if not found:
        return NOTHING
    lowest = min(found, key=lambda f: f.value)
    more = f"The lower of used and other photos: {ROLES[lowest.role]}" if len({f.role for f in found}) > 1 else None
    judges = len({f.measure for f in found})
    return _tile(words, lowest, None, _outcome(report, key, generator), judges, more)


def _attack(report: Report, generator: str | None) -> Html:
    """The judged attack that succeeds most often, and the best attack of somebody who has the original encoder."""
    tried = [
        f
        for f in attacked(report, "attack_success")
        if f.generator == generator and f.state == "edited" and f.attack != NO_ATTACK
    ]
    inside = [f for f in tried if not report.is_judged(f.attack or "")]
    judged = [f for f in tried if f not in inside] or inside
    if not judged:
        return NOTHING
    worst = max(judged, key=lambda f: f.value)
    more = None
    if inside and judged is not inside:
        strongest = max(inside, key=lambda f: f.value)
        more = f"With the files of an encoder, {strongest.attack}: {number(strongest.value, strongest.unit)}"
    outcome = None if judged is inside else _outcome(report, "attacks", generator)
    return _tile(f"Worst attack, {worst.attack}", worst, before(report, worst), outcome, 1, more)


def _outcome(report: Report, key: str, generator: str | None) -> Outcome | None:
    found = criterion(report, key, generator)
    return None if found is None else found.outcome


def _tile(
    words: str,
    figure: Figure,
    first: Figure | None,
    outcome: Outcome | None,
    judges: int,
    more: str | None = None,
) -> Html:
    value = el("b", number(figure.value, figure.unit))
    arrow = el("span", " \u2192 ", cls="arrow")
    start = NOTHING if first is None else join((el("span", number(first.value, first.unit), cls="before"), arrow))
    interval = span(figure)
    by = f"{figure.measure}, the worst of {judges}" if judges > 1 else figure.measure
    return el(
        "div",
        el("dt", words),
        el("dd", start, value, cls="big"),
        el("dd", _taken_over(figure) if interval is None else f"95\u00a0% interval {interval}", cls="small"),
        el("dd", f"Measured by {by}", cls="small"),
        None if more is None else el("dd", more, cls="small"),
        None if outcome is None else el("dd", icon(outcome), f"criterion: {outcome}", cls=f"mark {outcome}"),
        cls="tile",
    )


def _taken_over(figure: Figure) -> str:
    """The numbers of photos and people behind a figure without an interval."""
    what = ("picture", "pictures") if figure.generator is not None else ("photo", "photos")
    return f"{counted(figure.photos, *what)} of {counted(figure.people, 'person', 'people')}, no interval"
