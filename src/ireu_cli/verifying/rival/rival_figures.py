"""The rival: a face-match gate in front of an unedited generator; it refuses photos that match a target.

A recogniser compares each photo with the targets' enrolments, which are made from the photos given to unlearning, at
the same false-match rate. The gate lets a photo without a face through.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.identity import Enrolment, enrol
from ireu_cli.measuring.estimated import About, estimated
from ireu_cli.params import VerifyParams
from ireu_cli.report import Definition, Figure, Role
from ireu_cli.support.runtime import generator

_GATE = "photos of the role; enrolments come from the targets' photos that were given to unlearning"
GATE_DEFINITIONS = {
    "gate_caught": Definition(
        text="Share of the targets' photos that a face-match gate refuses, because the photo matches its person's "
        "enrolment at `false_match_rate`. The gate is an alternative to the edit, measured on the same photos.",
        unit="share",
        reference=_GATE,
    ),
    "gate_false_refusal": Definition(
        text="Share of retained people's photos that the gate refuses because they match any target. Thresholds are "
        "set on the other half of the retained people.",
        unit="share",
        reference="photos of retained people",
    ),
    "gate_evaded": Definition(
        text="Share of attacked photos that the gate lets through.",
        unit="share",
        reference="photos of attacked targets",
    ),
    "gate_beaten": Definition(
        text="Share of attacked photos that the gate lets through and from which the original encoder draws a "
        "picture that matches the target. This is what an attack on the gate gains.",
        unit="share",
        reference="attacked photos that pictures were drawn from",
    ),
}


@dataclass(frozen=True)
class Gate:
    """A gate with one recogniser, and its enrolled targets; None for a target without a face to enrol."""

    recogniser: str
    enrolments: Sequence[Enrolment | None]

    def refuses(self, vectors: Tensor, person: int) -> Tensor:
        """Whether photos (n, d) match one person: float64 (n,), 1 or 0; 0 without a face; NaN if nobody is enrolled."""
        enrolment = self.enrolments[person]
        if enrolment is None:
            return torch.full((len(vectors),), torch.nan, dtype=torch.float64)
        return enrolment.matches(vectors).nan_to_num(0)

    def refuses_any(self, vectors: Tensor) -> Tensor:
        """Whether photos (n, d) match anybody: float64 (n,)."""
        rows = [self.refuses(vectors, person) for person in range(len(self.enrolments))]
        return torch.stack(rows).nan_to_num(0).amax(0)


def make_gate(recogniser: str, targets: Sequence[Tensor], retained: Sequence[Tensor], rate: float) -> Gate:
    """Enrol the targets and set the thresholds.

    Args:
        recogniser: its name.
        targets: unit vectors (k, d) of each target's photos that were given to unlearning; photos without a face are
            left out.
        retained: the same for other people, whose photos set the thresholds.
        rate: false-match rate for each target.
    """
    others = _joined(retained)
    return Gate(recogniser, [enrol(rows, others, rate) if len(rows) else None for rows in targets])


def gate_figures(
    recogniser: str,
    seen: Sequence[Tensor],
    unseen: Sequence[Tensor],
    retained: Sequence[Tensor],
    params: VerifyParams,
    seed: int,
) -> tuple[Figure, ...]:
    """Figures of a gate: the photos of targets that it refuses, and those of other people.

    Args:
        recogniser: its name.
        seen: unit vectors (k, d) of each target's photos that were given to unlearning; rows are NaN without a face.
        unseen: the same for their other photos.
        retained: the same for retained people.
        params: false-match rate, resamples.
        seed: decides the bootstrap.
    """
    faces = [_faces(rows) for rows in retained]
    known = [_faces(rows) for rows in seen]
    if sum(bool(len(rows)) for rows in faces) < 2:
        return ()
    # Join them once, because a gate is made for each photo that is left out of its own enrolment.
    everybody = [_joined(faces)]
    gate = make_gate(recogniser, known, everybody, params.false_match_rate)
    values: dict[tuple[str, Role], list[Tensor]] = {
        ("gate_caught", "target-seen"): [_own(gate, rows, everybody, params.false_match_rate) for rows in seen],
        ("gate_caught", "target-unseen"): [gate.refuses(rows, n) for n, rows in enumerate(unseen)],
        ("gate_false_refusal", "retained"): _false_refusals(recogniser, known, faces, params.false_match_rate),
    }
    figures = (
        estimated(
            by_person,
            About(
                name=name, role=role, state="original", measure=recogniser, unit="share",
                false_match_rate=params.false_match_rate,
            ),
            params.bootstrap, generator(seed, "bootstrap", name, role, recogniser),
        )
        for (name, role), by_person in values.items()
    )  # fmt: skip
    return tuple(figure for figure in figures if figure is not None)


def _own(gate: Gate, rows: Tensor, retained: Sequence[Tensor], rate: float) -> Tensor:
    """Whether the photos behind the enrolment are refused, each left out in turn; a single photo gives no result."""
    found = []
    for place, row in enumerate(rows):
        rest = _faces(torch.cat([rows[:place], rows[place + 1 :]]))
        if len(rest):
            found.append(make_gate(gate.recogniser, [rest], retained, rate).refuses(row[None], 0))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


def _false_refusals(
    recogniser: str, targets: Sequence[Tensor], retained: Sequence[Tensor], rate: float
) -> list[Tensor]:
    halves = [[rows for place, rows in enumerate(retained) if place % 2 == half] for half in (0, 1)]
    if not all(any(len(rows) for rows in half) for half in halves):
        return []
    gates = [make_gate(recogniser, targets, half, rate) for half in halves]
    return [gates[1 - place % 2].refuses_any(rows) for place, rows in enumerate(retained) if len(rows)]


def _joined(people: Sequence[Tensor]) -> Tensor:
    """The photos of everybody, float64 (n, d)."""
    known = [rows for rows in people if len(rows)]
    return known[0].double() if len(known) == 1 else torch.cat(known).double()


def _faces(rows: Tensor) -> Tensor:
    return rows[torch.isfinite(rows).all(1)]
