"""One page for the person who asked not to be drawn: what was done, what it does, and what it does not do.

It holds no picture, no digest and no name, uses no word of the trade, and claims nothing that the report does not.
"""

from collections.abc import Iterator

from ireu_cli.report import NO_ATTACK, Report
from ireu_cli.report_page.document import document
from ireu_cli.report_page.markup import Html, el, facts, join, listed, section
from ireu_cli.report_page.pick import generators
from ireu_cli.report_page.readers.short import OTHERS, people_measured, share_before, still_found, winning_attacks
from ireu_cli.report_page.tables import icon
from ireu_cli.report_page.words import counted, listing, number, unit_of

_WORDS = {"pass": "Passed", "fail": "Not passed", "inconclusive": "Not shown"}
_VERDICTS = {
    "pass": "The change passed its test.",
    "fail": "The change did not pass its test. Do not take it as done.",
    "inconclusive": "The test could not show whether the change works. Do not take it as done.",
}
_GAPS = {
    "pictures": "No pictures were drawn in it.",
    "attacks": "Nobody tried in it to get past the change.",
    "default limits": "Its limits were easier than usual.",
}
_DOES_NOT = (
    "This page does not show whether a service uses the changed encoder. Ask the operator.",
    "Pictures of you that were drawn or published before stay where they are.",
    "Copies of the original model that other people hold still know you.",
    "If somebody holds the files of the changed encoder, they can take the change out again.",
    "If somebody types your name instead of giving a photo, this does not stop them.",
    "Nothing is said about photos of you in the data that a model was trained on.",
    "A photo that somebody changes on purpose can get past the change more easily than a plain one.",
)
_ABOUT = {
    "reidentified_unseen": "A face recogniser still finds the person in {} of the pictures that were drawn from photos "
    "which were not used for the change.",
    "reidentified_seen": "A face recogniser still finds the person in {} of the pictures that were drawn from photos "
    "which were used for the change.",
    "match_unseen": "The encoder still recognises the person in {} of the photos that were not used for the change.",
    "match_seen": "The encoder still recognises the person in {} of the photos that were used for the change.",
}
_SHOWN = 5
"""The most attacks that the page names."""
_SYSTEMS = 12
"""The most systems that it names."""
_NOT_STATED = "not stated by the operator"


def person_page(report: Report) -> str:
    """Render the page."""
    sections = join(
        section(key, title, content)
        for key, title, content in (
            ("done", "What was done", _done(report)),
            ("does", "What the test found", _found(report)),
            ("not", "What it does not do", _does_not(report)),
            ("photos", "Your photos", _photos(report)),
            ("ask", "What you can do", _ask(report)),
        )
    )
    tone = "inconclusive" if report.outcome == "pass" and report.gaps else report.outcome
    word = "Passed in part" if tone != report.outcome else _WORDS[report.outcome]
    head = el(
        "h1",
        el("span", "Your request not to be drawn", cls="kicker"),
        icon(tone),
        el("span", word, cls="word"),
    )
    top = el("header", el("div", head, el("p", _verdict(report), cls="reason"), cls=f"verdict {tone}"))
    return document("Your request not to be drawn", join((top, sections)), report)


def _verdict(report: Report) -> str:
    said = [_VERDICTS[report.outcome]]
    if report.outcome == "pass" and report.gaps:
        said.append("That test was incomplete.")
        said += [words for gap, words in _GAPS.items() if gap in report.gaps]
        names = [gap.removeprefix("generator ") for gap in report.gaps if gap.startswith("generator ")]
        if names:
            said.append(f"Generator {listing(names)} did not draw in it.")
        if any(gap.startswith("attacks on ") for gap in report.gaps):
            said.append("Not every generator was tested with photos that were changed on purpose.")
    return " ".join(said)


def _done(report: Report) -> Html:
    record = report.record
    whom = "you" if record.people == 1 else f"{record.people} people, you among them"
    used = counted(record.photos_used, "photo", "photos")
    words = (
        "Programs that draw a person from a photo look at the photo through a part that is called an image encoder. "
        f"This encoder was changed with {used} of {whom}. The aim was that it no longer passes on who is in such a "
        "photo, and that everybody else is drawn as before."
    )
    rows = [
        ("Case", record.case_id or _NOT_STATED),
        ("Date of your request", record.request_date or _NOT_STATED),
        ("Encoder", record.encoder_source or _NOT_STATED),
    ]
    return join((el("p", words), facts(rows)))


def _found(report: Report) -> Html:
    found = still_found(report)
    if report.outcome == "inconclusive" or found is None:
        return el("p", "The test did not measure enough to say anything about it.")
    unit, first = unit_of(found.name), share_before(report, found)
    was = "" if first is None else f" Before the change it was {number(first, unit)}."
    told = [_ABOUT[found.name].format(number(found.found or 0.0, unit)) + was, *_why_not(report)]
    measured = people_measured(report)
    if report.record.people > 1:
        told.append(
            f"These numbers are of {counted(measured, 'person', 'people')} together. You may not be among them."
        )
    names = generators(report) if report.level == "generator" else []
    if names:
        told.append(f"The test drew with {counted(len(names), 'generator', 'generators')}: {listing(names)}.")
    else:
        told.append("The test drew no pictures. It compared only what the encoder says.")
    return join(el("p", text) for text in told)


def _why_not(report: Report) -> Iterator[str]:
    """Why the test was not passed, one sentence for each kind of reason."""
    missed = {c.name for c in report.criteria if c.outcome == "fail"}
    if missed & set(_ABOUT):
        yield "That is more than the limit allows."
    if "delta_id" in missed:
        yield "The pictures of the person change too little."
    if "attacks" in missed:
        yield "Photos that were changed on purpose bring the person back too often."
    if "target_faces" in missed:
        yield "Instead of the person, often no face is drawn."
    if missed & set(OTHERS):
        yield "The change does more to other people's pictures than it may."


def _does_not(report: Report) -> Html:
    told: list[str] = list(_DOES_NOT)
    winning = winning_attacks(report)
    if winning:
        shown = listed(_meaning(report, name) for name in winning[:_SHOWN])
        more = "" if len(winning) <= _SHOWN else f" The {_SHOWN} most successful of {len(winning)} are:"
        told.append(join((f"In the test, some ways to get past it brought the person back too often.{more}", shown)))
    elif not set(report.record.attacks_tried) - {NO_ATTACK}:
        told.append("Nobody tried in this test whether a changed photo gets past it.")
    missed = [text.partition(":")[0] for text in report.record.systems_missed]
    if missed:
        names = [*missed[:_SYSTEMS], *([f"{len(missed) - _SYSTEMS} more"] if len(missed) > _SYSTEMS else [])]
        told.append(join(("These systems may still draw you:", listed(names))))
    return listed(told)


def _meaning(report: Report, attack: str) -> str:
    known = report.definitions.get(attack)
    return attack if known is None else known.text


def _photos(report: Report) -> Html:
    record = report.record
    supplied = f"{counted(record.photos_supplied, 'photo was', 'photos were')} supplied. "
    if record.photos_deleted_by:
        return el("p", f"{supplied}The operator deletes them by {record.photos_deleted_by}.")
    return el("p", f"{supplied}The operator has not stated when they are deleted. You can ask for the date.")


def _ask(report: Report) -> Html:
    case = f" Name the case {report.record.case_id}." if report.record.case_id else ""
    return listed(
        (
            "Ask the operator since when the service uses the changed encoder, and who else received it.",
            f"Ask for the full report.{case}",
            "If a generator still draws you, send the photo that it drew from. More photos make the change better.",
            "If you take your request back, ask the operator to undo the change for you.",
        )
    )
