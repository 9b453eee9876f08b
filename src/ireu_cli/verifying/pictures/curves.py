"""The data of the report's charts: similarities of drawn pictures, and the change of retained people's pictures."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.maths.identity import centroid
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence, PersonPictures
from ireu_cli.report import Curve, Kept, Role
from ireu_cli.values import STATES
from ireu_cli.verifying.operating_points import START, WIDTH, histogram

_ROLES: tuple[Role, ...] = ("target-seen", "target-unseen", "retained")


def drawn_curves(evidences: Sequence[GeneratorEvidence]) -> tuple[Curve, ...]:
    """Similarities of drawn pictures to the enrolment of their person, by generator, recogniser, role and state."""
    found = []
    for evidence in evidences:
        for role in _ROLES:
            for state in STATES:
                people = evidence.groups.get(role, ())
                scores = [_to_enrolment(getattr(person, state), person) for person in people if len(person.photos)]
                finite = [rows[torch.isfinite(rows)] for rows in scores]
                if any(len(rows) for rows in finite):
                    found.append(
                        Curve(
                            kind="drawn",
                            measure=evidence.recogniser,
                            generator=evidence.generator,
                            role=role,
                            state=state,
                            start=START,
                            width=WIDTH,
                            counts=histogram(torch.cat(finite)),
                        )
                    )
    return tuple(found)


def kept_plot(evidences: Sequence[GeneratorEvidence]) -> tuple[Kept, ...]:
    """For each retained person: similarity of the pictures before and after, and likeness to the nearest target."""
    found = []
    for evidence in evidences:
        targets = [centroid(rows.double()) for rows in evidence.target_photos if len(rows)]
        people = [p for role in ("retained", "look-alike") for p in evidence.groups.get(role, ()) if len(p.photos)]
        pairs = [_pair(person, targets) for person in people] if targets else []
        changes = sorted(pair for pair in pairs if all(map(math.isfinite, pair)))
        if changes:
            found.append(Kept(generator=evidence.generator, measure=evidence.recogniser, changes=tuple(changes)))
    return tuple(found)


def _pair(person: PersonPictures, targets: Sequence[Tensor]) -> tuple[float, float]:
    kept = float((person.original * person.edited).sum(1).nanmean())
    near = max(float(centroid(person.photos.double()) @ target) for target in targets)
    return round(kept, 4), round(near, 4)


def _to_enrolment(vectors: Tensor, person: PersonPictures) -> Tensor:
    return vectors.double() @ centroid(person.photos.double())
