"""What to do after a verdict, from the figures at hand. No step makes a limit looser."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ireu_cli.attacks.suite import attack_named
from ireu_cli.faces.disguise import Disguise
from ireu_cli.report import Control, Report
from ireu_cli.report_page.short import winning_attacks

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
        yield "Name more people with --retain: nothing could be compared."
    if any(c.outcome == "inconclusive" and c.name == "attacks" for c in report.criteria):
        yield "Give photos of the targets to attack: attacks were asked for, and none could be tried."


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
    "false_match_rate_resolved": lambda c: (
        "Add retained people with several photos each: about "
        f"{math.ceil(c.needed / c.found) if c.found else 10} times as many photos are needed to measure the rate."
    ),
    "no_op_fails": lambda _: (
        "Check that the photos are of the targets: with them, even an edit that changes nothing would pass."
    ),
    "other_person_fails": lambda _: (
        "Give more photos of the person, and more retained people: this evidence would also call other people removed."
    ),
    "tells_people_apart": lambda c: (
        f"Name another recogniser in judges.recognisers: {c.measure} cannot tell the retained people apart."
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


def _to_a_better_edit(report: Report, edit: Edit) -> Iterator[str]:
    missed = {c.name for c in report.criteria if c.outcome == "fail"}
    if edit.method not in {"gated", ""} and missed:
        yield f"Make the edit with --method gated instead of {edit.method}."
    if report.subject.taps_missed and missed & {"reidentified_seen", "reidentified_unseen", "delta_id"}:
        yield f"Locate at a tap that reaches all: this edit does not reach {', '.join(report.subject.taps_missed)}."
    if missed & {"match_unseen", "reidentified_unseen", "match_seen", "reidentified_seen", "delta_id"}:
        yield from _to_find_more(report, edit, missed)
    if "attacks" in missed:
        yield from _against_attacks(report, edit)
    if missed & _OTHERS_PAY:
        yield from _to_spare_others(edit, missed)
    if "target_faces" in missed and edit.method == "gated" and edit.gain > 1:
        yield f"Move people less far: lower gated.gain, which is {edit.gain:g}."
    if "null_change" in missed:
        yield (
            "Make the edit with --method gated, which leaves what the encoder says of empty photos alone."
            if (edit.method != "gated")
            else "Look into the --retain folder for empty pictures: the null images changed."
        )


_OTHERS_PAY = {
    "retained_similarity",
    "lookalike_similarity",
    "retained_change",
    "lookalike_change",
    "retained_id",
    "lookalike_id",
    "retained_psnr",
    "retained_ssim",
    "retained_faces",
    "adherence_drop",
}


def _to_find_more(report: Report, edit: Edit, missed: set[str]) -> Iterator[str]:
    used, people = report.record.photos_used, max(report.record.people, 1)
    each = f"{used / people:.3g}".rstrip("0").rstrip(".") if used % people else str(used // people)
    if missed & {"match_seen", "reidentified_seen"}:
        yield "Look into the --retain folder, and take out photos of the person."
    yield (
        f"Give more photos of each person than the {each} that unlearning used, in other light and from other sides: "
        "who is missed looks unlike them to the encoder."
    )
    if edit.method == "gated":
        yield "Name more retained people, with several photos each: a detector finds more at the same rate then."
        yield (
            "Allow more false alarms, if others may pay for it: gated.max_false_alarm is "
            f"{edit.max_false_alarm:g}, and gated.false_alarms {edit.false_alarms:g}."
        )


def _against_attacks(report: Report, edit: Edit) -> Iterator[str]:
    winning = winning_attacks(report)
    named = {name: attack_named(name) for name in winning}
    copies = [n for n, attack in named.items() if attack is not None and isinstance(attack.photo, Disguise)]
    more = [name for name in copies if name not in edit.copies]
    if more and edit.method in {"gated", "block"}:
        yield f"Let the edit learn the changes that won: --set gated.copies={','.join((*edit.copies, *more[:4]))}"
    if any(name not in copies for name in winning):
        rest = [name for name in winning if name not in copies]
        yield (
            f"Limit how often one user may ask: {', '.join(rest)} {'takes' if len(rest) == 1 else 'take'} many "
            "attempts, or the generator's gradients."
        )


def _to_spare_others(edit: Edit, missed: set[str]) -> Iterator[str]:
    if edit.method == "gated":
        yield (
            f"Allow fewer false alarms: gated.false_alarms is {edit.false_alarms:g}, and gated.max_false_alarm "
            f"{edit.max_false_alarm:g}."
        )
    if missed <= {name for name in _OTHERS_PAY if name.startswith("lookalike")}:
        yield "Give more photos of the person: those who look like the person are told apart better then."
    else:
        yield "Name more retained people, so that the edit knows better who else there is."


def _meanwhile(report: Report) -> str:
    caught = [f.value for f in report.figures if f.name == "gate_caught" and f.role == "target-unseen"]
    least = "all" if min(caught, default=0) == 1 else f"{min(caught, default=0):.0%} or more"
    share = f", which caught {least} of the photos here" if caught else ""
    return (
        "Meanwhile do not call the person removed: refuse their photos in front of the generator (a face-match gate"
        f"{share}), or take the service down for them."
    )
