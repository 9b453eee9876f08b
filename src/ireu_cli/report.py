"""The versioned schema of `report.json`: every figure with its meaning, every limit, and three outcomes.

Figures are one flat list. The fields of a figure say what it is about: the generator that drew, the recogniser or
library that measured, the attack that was tried, and the group of people.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["pass", "fail", "inconclusive"]
Role = Literal["target-seen", "target-unseen", "look-alike", "retained", "null"]
State = Literal["original", "edited", "change"]
Effect = Literal["weaker", "stronger", "no order"]
Unit = Literal["cosine", "ratio", "share", "dB", "distance"]

REPORT_SCHEMA_VERSION = 2
NO_ATTACK = "none"
"""The unchanged photos, which every attack is compared with."""
_WHITE_BOX = ("pgd-2", "pgd-4", "pgd-8", "pgd-detector-2", "pgd-detector-4", "pgd-detector-8", "relearn")
"""Prefixes of the names of attacks that were not judged in reports of earlier versions."""


def rounded(value: float, digits: int = 3, *limits: float) -> str:
    """A number with a given number of decimals, or more if it would otherwise be rounded to 0, 1 or a limit.

    Args:
        value: any finite number.
        digits: the usual number of decimals.
        limits: further numbers that it must not be rounded to.
    """
    apart = {limit for limit in (0.0, 1.0, *limits) if limit != value}
    for more in range(digits, digits + 9):
        text = f"{value:.{more}f}"
        if float(text) not in apart:
            return text
    return f"{value:.3g}"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(_Part):
    """One number: what it is, about whom, in which state, with a 95 % interval over people if there are enough.

    `measure` names the source: a recogniser, a library, or the tap's features. `generator` is set if pictures were
    drawn; `photos` then counts pictures. `edit` is the edit in the prompt, `attack` the attack that was tried, `group`
    a value of a label that the user supplies ("column = value"), and `false_match_rate` the rate that sets the
    threshold of a match.
    """

    name: str
    role: Role
    state: State
    measure: str
    generator: str | None = None
    edit: str | None = None
    attack: str | None = None
    group: str | None = None
    false_match_rate: float | None = None
    value: float
    low: float | None
    high: float | None
    photos: int
    people: int
    unit: Unit


class Definition(_Part):
    """The meaning of a figure, its unit, and the set of photos or pictures that it is taken over."""

    text: str
    unit: Unit
    reference: str


class OperatingPoint(_Part):
    """A recogniser at one false-match rate on the run's retained photos.

    `threshold` is the similarity at which other people match at that rate; `true_accept_rate` is the share of pairs of
    one person's photos above it; 95 % intervals are over people. `resolved`: there are enough pairs to measure the
    rate.
    """

    false_match_rate: float
    threshold: float
    threshold_low: float | None
    threshold_high: float | None
    true_accept_rate: float
    true_accept_low: float | None
    true_accept_high: float | None
    resolved: bool


class Calibration(_Part):
    """A recogniser's results on the run's retained photos, before it judges targets.

    `points`: the configured false-match rate first. `needed`: the true-accept rate that it has to reach there.
    """

    recogniser: str
    fingerprint: str
    photos: int
    people: int
    genuine_mean: float | None
    impostor_mean: float | None
    points: tuple[OperatingPoint, ...]
    needed: float
    usable: bool
    why_not: str | None = None


class Curve(_Part):
    """A distribution of similarities as counts in bins of equal width; the first bin begins at `start`.

    `kind`: `impostor` and `genuine` are pairs of retained people's photos; `drawn` compares pictures with the enrolment
    of their person, in `role` and `state`.
    """

    kind: Literal["impostor", "genuine", "drawn"]
    measure: str
    generator: str | None = None
    role: Role | None = None
    state: State | None = None
    start: float
    width: float
    counts: tuple[int, ...]


class Kept(_Part):
    """The change of each retained person's pictures, for the plot: one pair a person, without saying who.

    `changes`: for each person (similarity of pictures before and after, likeness to the nearest target).
    """

    generator: str
    measure: str
    changes: tuple[tuple[float, float], ...]


class Control(_Part):
    """A condition that a conclusion needs."""

    name: str
    generator: str | None = None
    measure: str | None = None
    met: bool
    found: float | None
    needed: float
    meaning: str


class Criterion(_Part):
    """One limit, fixed before the run, and the result."""

    name: str
    generator: str | None = None
    outcome: Outcome
    found: float | None
    threshold: float
    sense: Literal["at most", "at least"]
    meaning: str


class Departure(_Part):
    """A setting that is not the default: its value, the default, and where it was set.

    `effect`: whether it asks less or more of the edit; `no order` if neither can be said.
    """

    key: str
    value: Any
    default: Any
    source: str
    effect: Effect

    @property
    def words(self) -> str:
        """The value as in `ireu.toml`."""
        return _in_words(self.value)

    @property
    def usual(self) -> str:
        """The default as in `ireu.toml`."""
        return _in_words(self.default)


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else "unset" if value is None else str(value)


class Subject(_Part):
    """What was verified, by digests."""

    original_encoder: str
    edited_encoder: str
    delta_manifest: str
    tap: str
    served_dtype: str
    taps_reached: tuple[str, ...]
    taps_missed: tuple[str, ...]


class Provenance(_Part):
    """The inputs of the result, and how to obtain it again.

    `plan` holds the parameters of every section that decides the result, with all limits, as they were fixed before the
    run. `digests` holds the digests of manifests, generators and judges. `command` is the command line without paths.
    """

    tool_version: str
    plan_digest: str
    plan: dict[str, Any]
    seed: int
    digests: dict[str, str]
    environment: dict[str, str]
    command: str


class ErasureRecord(_Part):
    """The record of an erasure for a reviewer: what the tool knows, and what the operator states.

    The operator's fields come from the section `record` of the configuration and are never invented; an empty field is
    None or ().
    """

    case_id: str | None
    request_date: str | None
    legal_basis: str | None
    requester_verified_by: str | None
    photos_deleted_by: str | None
    encoder_source: str | None
    encoder_revision: str | None
    encoder_licence: str | None
    approved_by: str | None
    recipients: tuple[str, ...]
    supersedes: str | None
    superseded_by: str | None
    people: int
    photos_supplied: int
    photos_used: int
    edited_tensors: tuple[str, ...]
    edit_norm: float
    systems_covered: tuple[str, ...]
    systems_missed: tuple[str, ...]
    attacks_tried: tuple[str, ...]
    limits: tuple[str, ...]


class Report(_Part):
    """The content of `report.json`.

    `summary` is the result in one sentence; None in reports of earlier versions. `next_steps` says what to do now, in
    the order in which to try it. `standing` is the outcome in words, with what it does not rest on, and `gaps` names
    that: `pictures`, `attacks`, `generator NAME`, `attacks on generator NAME`, `default limits`. `departures` are the
    settings that are not the default; None in reports of earlier versions, which did not record them. `copies`: number
    of target photos that were left out because they are copies of photos that unlearning used; None in reports of
    earlier versions, which did not look for copies. `unjudged` are the attacks that were reported but not judged,
    because the attacker needs the files of an encoder, or the original's features of the person; None in reports of
    earlier versions.
    """

    schema_version: Literal[2] = 2
    outcome: Outcome
    reason: str
    level: Literal["encoder", "generator"]
    summary: str | None = None
    next_steps: tuple[str, ...] = ()
    standing: str | None = None
    gaps: tuple[str, ...] = ()
    departures: tuple[Departure, ...] | None = None
    copies: int | None = None
    unjudged: tuple[str, ...] | None = None
    subject: Subject
    recognisers: tuple[Calibration, ...] = ()
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]
    figures: tuple[Figure, ...]
    curves: tuple[Curve, ...] = ()
    kept: tuple[Kept, ...] = ()
    definitions: dict[str, Definition]
    not_measured: tuple[str, ...]
    record: ErasureRecord
    provenance: Provenance

    def is_judged(self, attack: str) -> bool:
        """Whether an attack, named as in its figures, counted in the outcome."""
        return not attack.startswith(_WHITE_BOX) if self.unjudged is None else attack not in self.unjudged
