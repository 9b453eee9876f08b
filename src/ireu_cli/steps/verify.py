"""Is the person gone, is everybody else still there, and does the evidence suffice to say so?

The features themselves are asked, through nearest-person retrieval among the retained people: a target that the edited
encoder still places near the original's view of that person is still there. Where generators drew, their pictures are
asked too, and all of them have to agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ireu_cli.params import VerifyParams
from ireu_cli.report import Control, Criterion, Figure, Outcome, Role, State
from ireu_cli.steps.figures import Evidence, find_figure, measure
from ireu_cli.steps.judge_pictures import picture_controls, picture_criteria
from ireu_cli.steps.judgement import Sense, control, criterion
from ireu_cli.steps.pictures import GeneratorEvidence, measure_pictures


@dataclass(frozen=True)
class Verified:
    """What `verify` found."""

    outcome: Outcome
    reason: str
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]
    figures: tuple[Figure, ...]


def verify(evidence: Evidence, params: VerifyParams, seed: int, drawn: Sequence[GeneratorEvidence] = ()) -> Verified:
    """Measure, check the controls, compare with the thresholds.

    Args:
        evidence: features before and after.
        params: thresholds, fixed before the run.
        seed: decides the bootstrap.
        drawn: pictures before and after, by generator.

    Returns:
        `fail` when a threshold is missed, `inconclusive` when a control is not met or evidence is missing, else `pass`.
    """
    useless = unusable(evidence)
    if useless is not None:
        return useless
    figures = measure(evidence, params, seed)
    controls = _controls(evidence, figures, params)
    criteria = _criteria(evidence, figures, params)
    for generator in drawn:
        found = measure_pictures(generator, params, seed)
        controls += picture_controls(generator, found, params)
        criteria += picture_criteria(generator, found, params)
        figures += found
    outcome, reason = _conclude(controls, criteria)
    return Verified(outcome, reason, controls, criteria, figures)


def unusable(evidence: Evidence) -> Verified | None:
    """Outcome for features that nothing can be measured on: too few people, or values that are not finite numbers."""
    if len(evidence.retained) < 2:
        return Verified(
            "inconclusive", "Fewer than two retained people are left whom unlearning did not use.", (), (), ()
        )
    people = [*evidence.targets, *evidence.retained]
    originals = [*(person.original for person in people), *evidence.reference]
    if not all(bool(torch.isfinite(part).all()) for part in originals):
        return Verified("inconclusive", "The original encoder gives features that are not finite numbers.", (), (), ())
    finite = all(bool(torch.isfinite(part).all()) for person in people for part in (person.edited, person.relative))
    if not finite or not bool(torch.isfinite(evidence.null_relative).all()):
        return Verified("fail", "The edited encoder gives features that are not finite numbers.", (), (), ())
    return None


def _controls(evidence: Evidence, figures: Sequence[Figure], params: VerifyParams) -> tuple[Control, ...]:
    photos = sum(len(person.original) for person in evidence.retained)
    before = [
        f.value
        for role in ("target-seen", "target-unseen")
        if (f := find_figure(figures, "match_rate", role, "original"))
    ]
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
            photos * params.false_match_rate,
            params.min_impostors_per_error,
            "expected false matches among retained photos",
        ),
        Control(
            name="no_op_fails",
            met=bool(before) and max(before) > max(params.max_match_seen, params.max_match_unseen),
            found=max(before, default=None),
            needed=max(params.max_match_seen, params.max_match_unseen),
            meaning="match rate of a delta that changes nothing must exceed what may remain",
        ),
    ]
    if params.require_unseen:
        controls.append(control("unseen_photos", unseen, 1, "photos of the targets that unlearning did not use"))
    return tuple(controls)


_UNSEEN = "match_unseen"
_CRITERIA: tuple[tuple[str, tuple[str, Role, State], Sense, str, str], ...] = (
    ("match_seen", ("match_rate", "target-seen", "edited"), "at most", "max_match_seen",
     "target photos used in unlearning that still match"),
    (_UNSEEN, ("match_rate", "target-unseen", "edited"), "at most", "max_match_unseen",
     "other photos of the targets that still match"),
    ("retained_similarity", ("feature_cosine", "retained", "change"), "at least", "min_retained_similarity",
     "retained people's features, before against after"),
    ("lookalike_similarity", ("feature_cosine", "look-alike", "change"), "at least", "min_lookalike_similarity",
     "the same for the retained people nearest to a target"),
    ("retained_change", ("centred_change", "retained", "change"), "at most", "max_retained_change",
     "change of retained features, over what sets a person apart"),
    ("lookalike_change", ("centred_change", "look-alike", "change"), "at most", "max_lookalike_change",
     "the same for the retained people nearest to a target"),
)  # fmt: skip
"""Name, figure (name, role, state), sense, key of the threshold, meaning."""


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
    unmet = [c for c in controls if not c.met]
    failed = [c for c in criteria if c.outcome == "fail"]
    unknown = [c for c in criteria if c.outcome == "inconclusive"]
    if unmet:
        parts = [f"{_name(c)} is {_number(c.found)}, needed {c.needed:g} ({c.meaning})" for c in unmet]
        return "inconclusive", "The evidence does not suffice: " + "; ".join(parts) + "."
    if failed:
        parts = [f"{_name(c)} is {_number(c.found)}, {c.sense} {c.threshold:g} allowed ({c.meaning})" for c in failed]
        return "fail", "Thresholds were missed: " + "; ".join(parts) + "."
    if unknown:
        return "inconclusive", "Not measured: " + ", ".join(_name(c) for c in unknown) + "."
    return "pass", "All controls hold and all thresholds are met."


def _name(item: Control | Criterion) -> str:
    return item.name if item.generator is None else f"{item.name} with generator {item.generator}"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
