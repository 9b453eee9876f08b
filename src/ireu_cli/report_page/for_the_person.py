"""One page for the person who asked not to be drawn: what was done, what it does, and what it does not do.

It holds no picture, no digest and no name, and it claims nothing that the report does not.
"""

from ireu_cli.report import Report
from ireu_cli.report_page.document import document
from ireu_cli.report_page.markup import Html, el, facts, join, listed, section
from ireu_cli.report_page.pick import generators
from ireu_cli.report_page.short import share_before, still_found, winning_attacks
from ireu_cli.report_page.tables import icon
from ireu_cli.report_page.words import counted, listing, number, unit_of

_VERDICTS = {
    "pass": "The change passed its test.",
    "fail": "The change failed its test. Do not take it as done.",
    "inconclusive": "The test could not show whether the change works. Do not take it as done.",
}
_DOES_NOT = (
    "Pictures of you that were drawn or published before stay where they are.",
    "Copies of the original model that other people hold still know you.",
    "Who types your name instead of giving a photo is not stopped by this.",
    "Nothing is said about photos of you in the data that a model was trained on.",
    "A photo that somebody changes on purpose can get past it more easily than a plain one.",
)
_SHOWN = 5
"""The most attacks that the page names."""
_NOT_STATED = "not stated by the operator"


def person_page(report: Report) -> str:
    """Render the page."""
    done, does, misses, photos, ask = (
        section(key, title, content)
        for key, title, content in (
            ("done", "What was done", _done(report)),
            ("does", "What it does", _does(report)),
            ("not", "What it does not do", _does_not(report)),
            ("photos", "Your photos", _photos(report)),
            ("ask", "What you can do", _ask(report)),
        )
    )
    head = el(
        "h1",
        el("span", "Your request not to be drawn", cls="kicker"),
        icon(report.outcome),
        el("span", {"pass": "Done", "fail": "Not done", "inconclusive": "Not shown"}[report.outcome], cls="word"),
    )
    top = el("header", el("div", head, el("p", _verdict(report), cls="reason"), cls=f"verdict {_tone(report)}"))
    return document("Your request not to be drawn", join((top, done, does, misses, photos, ask)), report)


def _tone(report: Report) -> str:
    """A pass that leaves something out must not be mistaken for a full pass."""
    return "inconclusive" if report.outcome == "pass" and report.gaps else report.outcome


def _verdict(report: Report) -> str:
    said = _VERDICTS[report.outcome]
    if report.outcome == "pass" and report.gaps:
        _, _, rest = (report.standing or "").partition(" ")
        said += f" That test was incomplete: it passed {rest}."
    return said


def _done(report: Report) -> Html:
    record = report.record
    whom = "you" if record.people == 1 else f"{counted(record.people, 'person', 'people')} together, you among them"
    photos = counted(record.photos_used, "photo", "photos")
    words = (
        "Programs that draw a person from a photo look at the photo through a part that is called an image encoder. "
        f"From {photos} of {'you' if record.people == 1 else 'these people'}, this encoder was changed so that it no "
        f"longer passes on who is in the photo. The change concerns {whom}. Everybody else should be drawn as before."
    )
    rows = [
        ("Case", record.case_id or _NOT_STATED),
        ("Date of your request", record.request_date or _NOT_STATED),
        ("Encoder", record.encoder_source or _NOT_STATED),
    ]
    return join((el("p", words), facts(rows)))


def _does(report: Report) -> Html:
    parts: list[Html | None] = []
    told = still_found(report)
    if told is None:
        parts.append(el("p", "Nothing was measured that would answer this."))
    else:
        found, what = told
        first, unit = share_before(report, found), unit_of(found.name)
        was = "" if first is None else f" Before the change it was {number(first, unit)}."
        about = what.replace("unlearning never saw", "were not used for it").replace(
            "unlearning used", "were used for it"
        )
        still = f"Of the {about}, {number(found.found or 0.0, unit)} still show the person to a face recogniser."
        parts.append(el("p", still + was))
        if report.record.people > 1:
            parts.append(el("p", f"These figures are of {report.record.people} people together, not of you alone."))
    names = generators(report) if report.level == "generator" else []
    if names:
        parts.append(el("p", f"It was tested with {counted(len(names), 'generator', 'generators')}: {listing(names)}."))
    else:
        parts.append(el("p", "No generator drew pictures in this test; only what the encoder says was compared."))
    return join(parts)


def _does_not(report: Report) -> Html:
    winning = winning_attacks(report)
    told: list[str] = list(_DOES_NOT)
    if winning:
        shown = listed(_meaning(report, name) for name in winning[:_SHOWN])
        more = "" if len(winning) <= _SHOWN else f" The {_SHOWN} most successful of {len(winning)}:"
        told.append(join((f"In the test, some ways to get past it brought the person back too often.{more}", shown)))
    elif "attacks" in report.gaps:
        told.append("Nobody tried in this test whether a changed photo gets past it.")
    missed = report.record.systems_missed
    if missed:
        told.append(f"These systems may still draw you, because the change does not reach them: {'; '.join(missed)}.")
    return listed(told)


def _meaning(report: Report, attack: str) -> str:
    known = report.definitions.get(attack)
    return attack if known is None else known.text


def _photos(report: Report) -> Html:
    record = report.record
    told = f"{counted(record.photos_supplied, 'photo', 'photos')} were supplied. "
    told += (
        f"The operator deletes them by {record.photos_deleted_by}."
        if record.photos_deleted_by
        else "The operator has not stated when they are deleted. Ask."
    )
    return el("p", told)


def _ask(report: Report) -> Html:
    case = f" Name the case {report.record.case_id}." if report.record.case_id else ""
    return listed(
        (
            f"Ask the operator for the full report and for who received the changed encoder.{case}",
            "If a generator still draws you, send the photo that it drew from: more photos make the change better.",
            "You can take the request back; the change for you is then removed.",
        )
    )
