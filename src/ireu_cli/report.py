"""The versioned schema of `report.json`: every figure with its meaning, every threshold, three outcomes.

Figures are one flat list. A figure of generated images differs from a figure of features only in `generator` and
`measure`, so generators and recognisers join without a change of shape.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["pass", "fail", "inconclusive"]
Role = Literal["target-seen", "target-unseen", "look-alike", "retained", "null"]
State = Literal["original", "edited", "change"]

REPORT_SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(_Part):
    """One number: what it is, of whom, in which state, with a 95 % interval over people where there are enough.

    `generator` and `edit` are set where pictures were drawn; `photos` then counts pictures.
    """

    name: str
    role: Role
    state: State
    measure: str
    generator: str | None = None
    edit: str | None = None
    value: float
    low: float | None
    high: float | None
    photos: int
    people: int
    unit: str


class Control(_Part):
    """A condition without which nothing can be concluded."""

    name: str
    generator: str | None = None
    met: bool
    found: float | None
    needed: float
    meaning: str


class Criterion(_Part):
    """One threshold, fixed before the run, and what was found."""

    name: str
    generator: str | None = None
    outcome: Outcome
    found: float | None
    threshold: float
    sense: Literal["at most", "at least"]
    meaning: str


class Subject(_Part):
    """What was verified, by digests."""

    original_encoder: str
    edited_encoder: str
    delta_manifest: str
    tap: str
    served_dtype: str
    taps_reached: tuple[str, ...]
    taps_missed: tuple[str, ...]


class Report(_Part):
    """The content of `report.json`."""

    schema_version: Literal[1] = 1
    outcome: Outcome
    reason: str
    level: Literal["encoder", "generator"]
    subject: Subject
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]
    figures: tuple[Figure, ...]
    definitions: dict[str, str]
    not_measured: tuple[str, ...]
