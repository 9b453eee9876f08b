"""What a report tells a manager, the person who asked, an auditor, and the operator who has to go on."""

import re
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.cli.run import parse_sets
from ireu_cli.config import load_config
from ireu_cli.faces.disguise import disguise
from ireu_cli.report import Control, Criterion, Departure, Report
from ireu_cli.report_page import audit_page, person_page
from ireu_cli.report_page.readers.short import in_short, winning_attacks
from ireu_cli.verifying.reporting.next_steps import Edit, next_steps
from tests.conftest import run_ireu
from tests.sample_report import encoder_only, nothing_measured, sample
from tests.test_report_page import part, walk

DOCS = Path(__file__).parent.parent / "docs"
EDIT = Edit("gated", ("flip", "grey"), 0.05, 0.01, 2.0)
IREU = Edit("ireu", (), 0.05, 0.01, 2.0)
ALWAYS = 2
"""Steps that every failed report has: make it again, and what to do meanwhile."""


def named_in_docs(title: str) -> list[str]:
    """Names in the first column of a table of docs/verify.md."""
    text = (DOCS / "verify.md").read_text()
    table = text[text.index(f"| {title} |") :].split("\n\n")[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def with_criterion(name: str, **more: Any) -> Report:
    """A failed report in which only this criterion is missed."""
    whole = sample("fail")
    sense, found, limit = ("at most", 0.6, 0.1) if not name.startswith(("ret", "look", "delta", "tar")) else (
        "at least", 0.3, 0.9)  # fmt: skip
    missed = Criterion(
        name=name, outcome="fail", found=found, threshold=limit, sense=sense, meaning="what it counts", **more
    )
    kept = tuple(c.model_copy(update={"outcome": "pass"}) for c in whole.criteria if c.name != name)
    return whole.model_copy(update={"criteria": (missed, *kept), "figures": ()})


def with_control(name: str) -> Report:
    """An inconclusive report in which only this control is not met."""
    unmet = Control(
        name=name, generator="A", measure="judge", met=False, found=0.0, needed=3.0, meaning="what it counts"
    )
    return sample("inconclusive").model_copy(update={"controls": (unmet,)})


def test_the_docs_name_what_is_tested_here() -> None:
    assert len(named_in_docs("control")) >= 10
    assert len(named_in_docs("criterion")) >= 15


@pytest.mark.parametrize("name", [name for name in named_in_docs("criterion") if name != "attacks"])
@pytest.mark.parametrize("edit", [EDIT, IREU], ids=["gated", "ireu"])
def test_every_missed_limit_has_advice(name: str, edit: Edit) -> None:
    steps = next_steps(with_criterion(name), edit)
    assert len(steps) > ALWAYS
    assert (f"--method gated instead of {edit.method}" in " ".join(steps)) == (edit is IREU)


@pytest.mark.parametrize("name", named_in_docs("control"))
def test_every_control_has_advice_and_a_sentence(name: str) -> None:
    report = with_control(name)
    assert len(next_steps(report, EDIT)) == ALWAYS
    assert "what it counts" in in_short(report)


def test_what_was_not_measured_although_every_control_holds_is_asked_about() -> None:
    whole = sample("inconclusive")
    controls = tuple(c.model_copy(update={"met": True}) for c in whole.controls)
    first = whole.criteria[0].model_copy(update={"outcome": "inconclusive", "found": None})
    report = whole.model_copy(update={"controls": controls, "criteria": (first, *whole.criteria[1:])})
    assert next_steps(report, EDIT)[0].startswith(f"Find out why {first.name} was not measured")


def test_advice_never_loosens_a_limit() -> None:
    reports = [with_criterion(name) for name in named_in_docs("criterion")]
    reports += [with_control(name) for name in named_in_docs("control")]
    for report in [*reports, sample("fail"), sample("inconclusive"), nothing_measured()]:
        for step in next_steps(report, EDIT):
            assert "verify." not in step, step
            assert "min_accept_rate" not in step, step


def test_advice_tells_what_is_missing() -> None:
    steps = " ".join(next_steps(with_control("unseen_photos"), EDIT))
    assert "at least 3 photos" in steps
    steps = " ".join(next_steps(with_criterion("match_unseen"), EDIT))
    assert "than the 4 that unlearning used" in steps
    assert "gated.max_false_alarm is 0.01" in steps


def test_a_won_attack_is_learnt_by_settings_that_the_next_run_accepts() -> None:
    report = sample("fail")
    winning = winning_attacks(report)
    assert "glasses" in winning
    assert not {"none", "pgd-8", "relearn"} & set(winning)
    told = " ".join(next_steps(report, EDIT))
    setting = re.search(r"--set (gated.copies=\S+)", told)
    assert setting is not None
    names = load_config(None, {}, parse_sets([setting[1]])).config.gated.copies
    assert names[:2] == ("flip", "grey")
    assert "glasses" in names
    assert all(disguise(name).name == name for name in names)


def test_a_full_pass_has_nothing_to_do_and_a_gap_has() -> None:
    assert next_steps(sample(), EDIT) == ()
    gaps = sample().model_copy(update={"gaps": ("pictures", "attacks", "default limits")})
    steps = next_steps(gaps, EDIT)
    assert len(steps) == 3
    assert "--strict" in steps[2]


def test_the_sentence_names_the_worst_first() -> None:
    failed = in_short(sample("fail"))
    worst = max(c.found or 0 for c in sample("fail").criteria if c.name == "reidentified_unseen")
    assert f"{100 * worst:.1f}" in failed
    assert failed.startswith("This edit misses its limits: Generator A: ")
    # Only attacks are missed: they come first, although the person is named first otherwise.
    kept = tuple(
        c if c.name == "attacks" else c.model_copy(update={"outcome": "pass"}) for c in sample("fail").criteria
    )
    assert "limits: 4 of 10 attacks" in in_short(sample("fail").model_copy(update={"criteria": kept}))
    others = in_short(with_criterion("retained_psnr", generator="B"))
    assert others.startswith(
        "This edit misses its limits: Generator B: other people's pictures before and after are alike by 0.3 dB PSNR"
    )
    alike = in_short(with_criterion("lookalike_change"))
    assert "features of people who look like the person move by 0.3" in alike


def test_the_limit_that_is_missed_by_most_is_told() -> None:
    seen = with_criterion("reidentified_seen", generator="A").criteria[0].model_copy(update={"found": 0.9})
    unseen = seen.model_copy(update={"name": "reidentified_unseen", "found": 0.11})
    report = sample("fail").model_copy(update={"criteria": (unseen, seen), "figures": ()})
    assert "90.0 % of the pictures drawn from photos that unlearning used" in in_short(report)


def test_an_attack_that_nearly_wins_is_told() -> None:
    told = in_short(sample())
    best = max(c.found or 0 for c in sample().criteria if c.name == "attacks")
    assert f"the most successful of 10 judged attacks wins {100 * best:.1f} %, at most 25.0 % allowed" in told


def test_a_fail_without_criteria_gives_its_reason() -> None:
    bare = sample("fail").model_copy(update={"criteria": (), "controls": (), "figures": (), "reason": "No numbers."})
    assert in_short(bare) == "This edit misses its limits: No numbers."
    assert next_steps(bare, EDIT)[0] == "Mend what the reason names: No numbers."


def test_advice_against_attacks_is_one_that_works() -> None:
    whole = sample("fail")
    names = {"jpeg-20": "mix-same", "glasses": "average", "seeds": "pgd-generator", "flip": "scale"}
    figures = tuple(
        f.model_copy(update={"attack": names.get(f.attack or "", f.attack), "value": 0.9 if f.attack in names else 0.0})
        for f in whole.figures
        if f.name == "attack_success" and f.state == "edited"
    )
    told = " ".join(next_steps(whole.model_copy(update={"figures": figures}), EDIT))
    assert "gated.copies" not in told, "copies made of one photo cannot teach mixtures"
    assert "pictures made of several photos: " in told
    assert "average" in told.split("pictures made of several photos: ")[1].split(" won")[0]
    assert "Keep the files of generator and encoder to yourself: pgd-generator won." in told
    assert "less open to users: scale won." in told


def test_advice_does_not_contradict_itself_or_invent() -> None:
    both = with_criterion("match_unseen")
    more = with_criterion("retained_psnr").criteria[0]
    told = " ".join(next_steps(both.model_copy(update={"criteria": (*both.criteria, more)}), EDIT))
    assert "Allow fewer false alarms" in told
    assert "Allow more false alarms" not in told
    old = " ".join(next_steps(with_criterion("match_unseen"), Edit.of({"unlearn": {"method": "gated"}})))
    assert "nan" not in old
    record = sample().record.model_copy(update={"people": 10, "photos_used": 1001})
    told = " ".join(next_steps(both.model_copy(update={"record": record}), EDIT))
    assert "than the 100.1 that unlearning used" in told


def test_a_pass_says_what_it_does_not_rest_on() -> None:
    partial = {"gaps": ("attacks",), "standing": "passed without attacks"}
    assert in_short(sample().model_copy(update=partial)).endswith("; and it passed without attacks.")
    assert "passed" not in in_short(sample())


def test_nothing_measured_gives_the_reason() -> None:
    assert "Fewer than two retained people" in in_short(nothing_measured())


@pytest.mark.parametrize(
    ("report", "word"),
    [(sample(), "Passed"), (sample("fail"), "Not passed"), (sample("inconclusive"), "Not shown")],
    ids=["pass", "fail", "inconclusive"],
)
def test_the_person_reads_what_became_of_the_request(report: Report, word: str) -> None:
    record = report.record.model_copy(update={"photos_deleted_by": "2031-05-17"})
    root = walk(person_page(report.model_copy(update={"record": record})))
    assert next(root.all("span", "word")).text == word
    assert record.case_id is not None
    assert record.case_id in root.text
    assert "2031-05-17" in root.text
    # No digest, and no name of a figure: this page is for somebody who has never heard of either.
    assert not re.search(r"[0-9a-f]{12}", root.text)
    assert "reidentified" not in root.text
    for outside in report.record.systems_missed:
        assert outside in root.text


def test_the_person_is_told_of_several_people_and_of_an_incomplete_test() -> None:
    many = sample().record.model_copy(update={"people": 5, "photos_deleted_by": None})
    partial = {"gaps": ("pictures",), "standing": "passed on features alone", "record": many}
    root = walk(person_page(sample().model_copy(update=partial)))
    assert "of 5 people, you among them" in root.text
    assert "You may not be among them" in root.text
    assert next(root.all("span", "word")).text == "Passed in part"
    assert "No pictures were drawn in it." in root.text
    assert "features" not in root.text
    assert "has not stated when they are deleted" in root.text
    assert "inconclusive" in next(root.all("div", "verdict")).attributes["class"].split()
    alone = walk(person_page(encoder_only())).text
    assert "The test drew no pictures" in alone
    assert "The encoder still recognises the person in 2.5\u00a0% of the photos" in alone


def test_the_person_reads_no_number_that_proves_nothing() -> None:
    for report in (sample("inconclusive"), nothing_measured()):
        text = walk(person_page(report)).text
        assert "did not measure enough" in text
        assert "\u00a0%" not in text.partition("What was done")[2]


def test_the_person_reads_why_it_was_not_passed() -> None:
    reasons = {"retained_psnr": "other people's pictures", "target_faces": "no face", "match_seen": "more than"}
    for name, words in reasons.items():
        assert words in part(walk(person_page(with_criterion(name))), "does").text


def test_the_auditor_reads_departures_and_what_was_not_tried() -> None:
    low = Departure(key="verify.max_match_seen", value=0.5, default=0.1, source="flag", effect="weaker")
    report = sample("fail").model_copy(update={"departures": (low,)})
    text = walk(audit_page(report)).text
    assert "verify.max_match_seen" in text
    assert "weaker than the default" in text
    for told in (*report.not_measured, *report.record.limits, report.subject.edited_encoder, report.provenance.command):
        assert told in text
    assert "None: every limit" in walk(audit_page(report.model_copy(update={"departures": ()}))).text
    assert "did not record departures" in walk(audit_page(report.model_copy(update={"departures": None}))).text


def test_verify_writes_all_pages_and_says_what_to_do(fresh: Path) -> None:
    done = run_ireu("verify", "--delta", "delta.safetensors", "-o", "again", "--json", cwd=fresh)
    assert done.code in {0, 4}
    report = Report.model_validate_json((fresh / "again" / "report.json").read_text())
    assert report.summary == in_short(report)
    assert "In short: " + report.summary in done.err
    assert report.next_steps
    assert all(f"next: {step}" in done.err for step in report.next_steps)
    for name, made in (("person.html", person_page), ("audit.html", audit_page)):
        assert (fresh / "again" / name).read_text() == made(report)
        assert name in (fresh / "again" / "manifest.json").read_text()
