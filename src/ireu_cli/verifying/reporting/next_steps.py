"""What to do after a verdict, from the figures at hand. No step makes a limit looser."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ireu_cli.attacks.suite import attack_named
from ireu_cli.faces.disguise import Disguise
from ireu_cli.report import Control, Report
from ireu_cli.report_page.readers.short import OTHERS, STILL, winning_attacks
from ireu_cli.report_page.words import number

_AGAIN = "Afterwards make the edit again and verify it again."


@dataclass(frozen=True)
class Edit:
    """How an edit was made, as far as the advice depends on it: `unlearn.method`, `gated.copies`, `gated.*`."""

    method: str
    copies: tuple[str, ...]
    false_alarms: float
    max_false_alarm: float
    gain: float

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Edit":
        """Read from the parameters in a delta's manifest; what an earlier version did not write is unknown."""
        unlearn, gated = parameters.get("unlearn", {}), parameters.get("gated", {})
        return cls(
            method=str(unlearn.get("method", "")),
            copies=tuple(gated.get("copies", ())),
            false_alarms=float(gated.get("false_alarms", math.nan)),
            max_false_alarm=float(gated.get("max_false_alarm", math.nan)),
            gain=float(gated.get("gain", math.nan)),
        )

    @property
    def knows_rates(self) -> bool:
        """Whether the settings of its false alarms are known."""
        return not math.isnan(self.false_alarms + self.max_false_alarm)


def next_steps(report: Report, edit: Edit) -> tuple[str, ...]:
    """Steps in the order in which to try them; none after a pass that leaves nothing out.

    Args:
        report: the report, without its steps.
        edit: how the delta was made.
    """
    if report.outcome == "pass":
        return tuple(_to_a_full_pass(report))
    if report.outcome == "inconclusive":
        steps = [*_to_evidence(report), "Then verify again. Until a run passes, treat the person as not removed."]
    else:
        steps = [*_to_a_better_edit(report, edit), _AGAIN, _meanwhile(report)]
    return tuple(dict.fromkeys(steps))


def _to_a_full_pass(report: Report) -> Iterator[str]:
    """What a pass does not rest on."""
    names = [gap.removeprefix("generator ") for gap in report.gaps if gap.startswith("generator ")]
    if "pictures" in report.gaps:
        yield "Verify with an encoder bundle that has generators: features alone do not show what is drawn."
    if names:
        yield f"Let generator {' and '.join(names)} draw too: name all in pictures.generators."
    if any(gap.startswith("attacks") for gap in report.gaps):
        yield 'Try the attacks: set attacks.suite to "all" and attacks.drawn to 1 or more.'
    if "default limits" in report.gaps:
        yield "Verify again with --strict and without the settings that are weaker than the default."


def _to_evidence(report: Report) -> Iterator[str]:
    for control in report.controls:
        if not control.met and control.name in _EVIDENCE:
            yield _EVIDENCE[control.name](control)
    if not report.controls:
        yield f"Mend what the reason names: {report.reason}"
    if any(not control.met for control in report.controls):
        return
    for unknown in report.criteria:
        if unknown.outcome == "inconclusive":
            yield f"Find out why {unknown.name} was not measured: {unknown.meaning}."


def _short(control: Control) -> int:
    """How many are missing at least."""
    return max(1, math.ceil(control.needed - (control.found or 0.0)))


def _drawn(control: Control) -> str:
    return f"generator {control.generator}"


_EVIDENCE: Mapping[str, Callable[[Control], str]] = {
    "original_shows_target": lambda _: (
        "Give other photos of the person, sharp and from the front, and cut to the "
        "face (--faces detect): with the original encoder these hardly match each other."
    ),
    "gallery_people": lambda c: (
        f"Add at least {_short(c)} people to the --retain folder whom neither locate nor "
        "unlearn uses (data.retain_holdout keeps a share of them apart)."
    ),
    "gallery_faces": lambda c: (
        f"Add at least {_short(c)} people with a visible face to the --retain folder, for {_drawn(c)}."
    ),
    "false_match_rate_resolved": lambda _: (
        "Add retained people with several photos each: there are too few photos, "
        "or too few people, to measure the false-match rate."
    ),
    "no_op_fails": lambda _: (
        "Check that the photos are of the targets: with them, even an edit that changes nothing would pass."
    ),
    "other_person_fails": lambda _: (
        "Give more photos of the person, and more retained people: this evidence would also call other people removed."
    ),
    "tells_people_apart": lambda c: (
        f"Replace the recogniser {c.measure}, which cannot tell the retained people apart "
        "(judges.recognisers, judges.embedded), or add retained people with several photos each."
    ),
    "unseen_photos": lambda c: (
        f"Add at least {_short(c)} photos of the person that unlearning does not use and that "
        "are no copies of those it used, and name their folder with --targets."
    ),
    "used_photos_known": lambda _: (
        "Bring back the photos that unlearning used, or unlearn again, so that copies of them can be found."
    ),
    "photos_show_faces": lambda _: "Give photos that show one face, and cut them to it (--faces detect).",
    "original_draws_faces": lambda c: f"Check {_drawn(c)}: with the original encoder it often draws no face.",
    "original_draws_target": lambda c: (
        f"Give other photos of the person, or more noises (pictures.seeds): with the "
        f"original encoder {_drawn(c)} hardly draws the person."
    ),
}
"""What helps when a control is not met, by its name."""
_PERSON_STAYS = {*STILL, "delta_id"}
_OTHERS_PAY = OTHERS.keys() - {"null_change"}


def _to_a_better_edit(report: Report, edit: Edit) -> Iterator[str]:
    missed = {c.name for c in report.criteria if c.outcome == "fail"}
    if not missed:
        yield f"Mend what the reason names: {report.reason}"
        return
    if edit.method not in {"gated", ""}:
        yield f"Make the edit with --method gated instead of {edit.method}, if this encoder allows it."
    if report.subject.taps_missed and missed & {"reidentified_seen", "reidentified_unseen", "delta_id"}:
        yield f"Locate at a tap that reaches all: this edit does not reach {', '.join(report.subject.taps_missed)}."
    if missed & _PERSON_STAYS:
        yield from _to_find_more(report, edit, missed)
    if "attacks" in missed:
        yield from _against_attacks(report, edit)
    if missed & _OTHERS_PAY:
        yield from _to_spare_others(edit, missed & _OTHERS_PAY)
    if "target_faces" in missed:
        yield (
            f"Move people less far: lower gated.gain, which is {edit.gain:g}."
            if edit.method == "gated" and edit.gain > 1
            else "Take fewer steps, or a smaller learning rate: the edit destroys the person's pictures."
        )
    if "null_change" in missed:
        yield "Look for empty pictures in the --retain folder: what the encoder says of an empty photo changed."


def _to_find_more(report: Report, edit: Edit, missed: set[str]) -> Iterator[str]:
    each = round(report.record.photos_used / max(report.record.people, 1), 1)
    if missed & {"match_seen", "reidentified_seen"}:
        yield "Look into the --retain folder, and take out photos of the person."
    yield (
        f"Give more photos of each person than the {each:g} that unlearning used, in other light and from other sides: "
        "photos that are missed look unlike them to the encoder."
    )
    if edit.method == "gated":
        yield "Name more retained people, with several photos each: a detector finds more at the same rate then."
        if edit.knows_rates and not missed & _OTHERS_PAY:
            yield (
                "Allow more false alarms, if others may pay for it: gated.max_false_alarm is "
                f"{edit.max_false_alarm:g}, and gated.false_alarms {edit.false_alarms:g}."
            )


_TOGETHER = "Refuse several photos at once, and pictures made of several photos"
_SETTINGS = "Leave the generator's prompt, guidance, scale and noise less open to users"
_KEPT = "Keep the files of generator and encoder to yourself"
_ADVICE = {
    "average": _TOGETHER,
    "prompts": _SETTINGS,
    "seeds": _SETTINGS,
    "guidance": _SETTINGS,
    "scale": _SETTINGS,
    "pgd-generator": _KEPT,
}
"""What a service can do against an attack that no copy teaches."""


def _against_attacks(report: Report, edit: Edit) -> Iterator[str]:
    named = {name: attack for name in winning_attacks(report) if (attack := attack_named(name)) is not None}
    photos = {name: attack.photo for name, attack in named.items() if isinstance(attack.photo, Disguise)}
    # A copy is made of one photo alone, so a mixture teaches nothing.
    more = [name for name, photo in photos.items() if photo.family != "mix" and name not in edit.copies]
    if more and edit.method in {"gated", "block"}:
        yield f"Let the edit learn the changes that won: --set gated.copies={','.join((*edit.copies, *more[:4]))}"
    mixed = {name: _TOGETHER for name, photo in photos.items() if photo.family == "mix"}
    rest = mixed | {name: _ADVICE[attack.name] for name, attack in named.items() if attack.name in _ADVICE}
    for advice in dict.fromkeys(rest.values()):
        yield f"{advice}: {', '.join(name for name, words in rest.items() if words == advice)} won."


def _to_spare_others(edit: Edit, missed: set[str]) -> Iterator[str]:
    if edit.method == "gated" and edit.knows_rates:
        yield (
            f"Allow fewer false alarms: gated.false_alarms is {edit.false_alarms:g}, and gated.max_false_alarm "
            f"{edit.max_false_alarm:g}."
        )
    if all(name.startswith("lookalike") for name in missed):
        yield "Give more photos of the person: those who look like the person are told apart better then."
    else:
        yield "Name more retained people, so that the edit knows better who else there is."


def _meanwhile(report: Report) -> str:
    caught = [f.value for f in report.figures if f.name == "gate_caught" and f.role == "target-unseen"]
    share = f", which caught {number(min(caught), 'share')} of the photos here" if caught else ""
    return (
        "Meanwhile do not call the person removed: refuse their photos in front of the generator (a face-match gate"
        f"{share}), or take the service down for them."
    ).replace("\u00a0", " ")
