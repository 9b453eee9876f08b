"""Decide whether the person is gone, whether everybody else is unchanged, and whether the evidence is enough to say so.

The features are tested by nearest-person retrieval among the retained people: if the edited encoder still places a
target near the original encoder's features of that person, the target is still there. If generators drew, their
pictures are tested too, and all of them have to agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ireu_cli.attacks.success import attack_criteria
from ireu_cli.attacks.suite import is_judged
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.measuring.judgement import OTHERS_STAY, Sense, control, criterion, false_matches, others_stay
from ireu_cli.measuring.matching import Compared, Evidence, compare
from ireu_cli.params import VerifyParams
from ireu_cli.report import Calibration, Control, Criterion, Figure, Outcome, Role, State, rounded
from ireu_cli.verifying.figures import find_figure, measure, share_removed
from ireu_cli.verifying.label_groups import shareable
from ireu_cli.verifying.pictures.picture_criteria import judge_drawn


@dataclass(frozen=True)
class Verified:
    """The result of `verify`."""

    outcome: Outcome
    reason: str
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Beside:
    """What verification takes into account besides features and pictures.

    `calibrations`: the recognisers' results on retained photos. `figures`: figures measured elsewhere: attacks, the
    face-match gate, distances between sets of pictures. `labelled`: groups of retained people by their positions.
    `attacked`: generators that were to be attacked, None for features.
    """

    calibrations: tuple[Calibration, ...] = ()
    figures: tuple[Figure, ...] = ()
    attacked: tuple[str | None, ...] = ()
    labelled: tuple[tuple[str, frozenset[int]], ...] = ()


def verify(
    evidence: Evidence,
    params: VerifyParams,
    seed: int,
    drawn: Sequence[GeneratorEvidence] = (),
    beside: Beside = Beside(),
) -> Verified:
    """Measure, check the controls, and compare the figures with the limits.

    Args:
        evidence: features before and after.
        params: limits, fixed before the run.
        seed: decides the bootstrap.
        drawn: pictures before and after, by generator and recogniser.
        beside: calibrations, further figures, groups.

    Returns:
        `fail` if a limit is missed, `inconclusive` if a control is not met or evidence is missing, else `pass`.
    """
    useless = unusable(evidence)
    if useless is not None:
        return useless
    compared = compare(evidence, params)
    figures = measure(evidence, params, seed, compared, beside.labelled)
    controls = (*_controls(evidence, figures, compared, params), *(_apart(found) for found in beside.calibrations))
    criteria = _criteria(evidence, figures, params)
    for found in judge_drawn(drawn, params, seed, beside.labelled):
        controls += found.controls
        criteria += found.criteria
        figures += found.figures
    criteria += attack_criteria(beside.figures, beside.attacked, is_judged, params)
    outcome, reason = _conclude(controls, criteria)
    return Verified(outcome, reason, controls, criteria, shareable((*figures, *beside.figures)))


def _apart(found: Calibration) -> Control:
    """The control that a recogniser tells retained people apart; otherwise it says nothing about targets."""
    rate = found.points[0].true_accept_rate if found.points else None
    why = "" if found.why_not is None else f": {found.why_not}"
    return Control(
        name="tells_people_apart",
        measure=found.recogniser,
        met=found.usable,
        found=rate,
        needed=found.needed,
        meaning=f"pairs of photos of one retained person that {found.recogniser} matches{why}",
    )


def unusable(evidence: Evidence) -> Verified | None:
    """The outcome for features that cannot be measured: too few people, or values that are not finite numbers."""
    if len(evidence.retained) < 2:
        return Verified(
            "inconclusive", "Fewer than two retained people remain that unlearning did not use.", (), (), ()
        )
    survey = evidence.survey
    if not survey.finite_before or not all(bool(torch.isfinite(part).all()) for part in evidence.reference):
        return Verified("inconclusive", "The original encoder gives features that are not finite numbers.", (), (), ())
    if not survey.finite_after or not bool(torch.isfinite(evidence.null_relative).all()):
        return Verified("fail", "The edited encoder gives features that are not finite numbers.", (), (), ())
    return None


def _controls(
    evidence: Evidence, figures: Sequence[Figure], compared: Compared, params: VerifyParams
) -> tuple[Control, ...]:
    photos = sum(evidence.sizes)
    found = (find_figure(figures, "match_rate", role, "original") for role in ("target-seen", "target-unseen"))
    before = [figure.value for figure in found if figure is not None]
    unseen = sum(int((~person.seen).sum()) for person in evidence.targets)
    controls = [
        control(
            "original_shows_target",
            min(before, default=None),
            params.min_original_match,
            "share of target photos that match with the original encoder",
        ),
        control(
            "gallery_people",
            len(evidence.retained),
            params.min_gallery_people,
            "retained people that unlearning did not use",
        ),
        control(
            "false_match_rate_resolved",
            false_matches(photos, len(evidence.retained), params),
            params.min_impostors_per_error,
            "expected false matches among retained photos",
        ),
        Control(
            name="no_op_fails",
            met=bool(before) and max(before) > max(params.max_match_seen, params.max_match_unseen),
            found=max(before, default=None),
            needed=max(params.max_match_seen, params.max_match_unseen),
            meaning="match rate of a delta that changes nothing, which must exceed the limits on matches",
        ),
    ]
    controls.append(others_stay([share_removed(compared.retained.values(), params)], params))
    if params.require_unseen:
        meaning = "photos of the targets that unlearning did not use and that are not copies of photos it used"
        controls.append(control("unseen_photos", unseen, params.min_unseen_photos, meaning))
    if evidence.known_used < 1:
        meaning = "share of used photos that are available or kept in the run folder, so that copies can be found"
        controls.append(control("used_photos_known", evidence.known_used, 1.0, meaning))
    return tuple(controls)


_UNSEEN = "match_unseen"
_CRITERIA: tuple[tuple[str, tuple[str, Role, State], Sense, str, str], ...] = (
    ("match_seen", ("match_rate", "target-seen", "edited"), "at most", "max_match_seen",
     "share of target photos used in unlearning that still match"),
    (_UNSEEN, ("match_rate", "target-unseen", "edited"), "at most", "max_match_unseen",
     "share of other target photos that still match"),
    ("retained_similarity", ("feature_cosine", "retained", "change"), "at least", "min_retained_similarity",
     "cosine of retained people's features, before against after"),
    ("lookalike_similarity", ("feature_cosine", "look-alike", "change"), "at least", "min_lookalike_similarity",
     "the same for the retained people nearest to a target"),
    ("retained_change", ("centred_change", "retained", "change"), "at most", "max_retained_change",
     "change of retained features, divided by what sets a person apart"),
    ("lookalike_change", ("centred_change", "look-alike", "change"), "at most", "max_lookalike_change",
     "the same for the retained people nearest to a target"),
)  # fmt: skip
"""Name, figure (name, role, state), sense, key of the limit, meaning."""


def _criteria(evidence: Evidence, figures: Sequence[Figure], params: VerifyParams) -> tuple[Criterion, ...]:
    criteria = []
    for name, key, sense, threshold, meaning in _CRITERIA:
        figure = find_figure(figures, *key)
        if figure is not None or name != _UNSEEN or params.require_unseen:
            found = None if figure is None else figure.value
            criteria.append(criterion(name, found, sense, getattr(params, threshold), meaning))
    worst = float(evidence.null_relative.max())
    meaning = "relative change of the worse of the two null images"
    return (*criteria, criterion("null_change", worst, "at most", params.max_null_change, meaning))


def _conclude(controls: Sequence[Control], criteria: Sequence[Criterion]) -> tuple[Outcome, str]:
    failed = [c for c in criteria if c.outcome == "fail"]
    unknown = [c for c in criteria if c.outcome == "inconclusive"]
    # A delta that removes everybody fails because of its effect on them; this control only follows from that.
    unmet = [c for c in controls if not c.met and not (c.name == OTHERS_STAY and failed)]
    if unmet:
        parts = [f"{_name(c)} is {_number(c.found, c.needed)}, and {c.needed:g} is needed ({c.meaning})" for c in unmet]
        return "inconclusive", "The evidence is not enough: " + "; ".join(parts) + "."
    if failed:
        parts = [
            f"{_name(c)} is {_number(c.found, c.threshold)} and must be {c.sense} {c.threshold:g} ({c.meaning})"
            for c in failed
        ]
        return "fail", "Limits were missed: " + "; ".join(parts) + "."
    if unknown:
        return "inconclusive", "Not measured: " + ", ".join(_name(c) for c in unknown) + "."
    return "pass", "All controls hold and all limits are met."


def _name(item: Control | Criterion) -> str:
    measure = item.measure if isinstance(item, Control) else None
    by = "" if measure is None else f" by {measure}"
    return (item.name if item.generator is None else f"{item.name} with generator {item.generator}") + by


def _number(value: float | None, limit: float) -> str:
    """Format with up to three decimals; never round to 0, 1 or the limit."""
    if value is None:
        return "not measured"
    text = rounded(value, 3, limit)
    return text.rstrip("0").rstrip(".") if "." in text else text
