"""Figures of verification at encoder level: every photo against its person's enrolment, before and after the edit.

People are enrolled with the original encoder, as every generator that mounts the encoder was trained on its output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ireu_cli.maths.identity import IdentitySpace, centroid, fit_space, match_threshold
from ireu_cli.params import VerifyParams
from ireu_cli.report import Definition, Figure, Role, State
from ireu_cli.runtime import generator
from ireu_cli.steps.estimated import estimated

_TAP = "the tap's output for photos of the role"
_SET = "photos of the role; enrolments from the original encoder, thresholds and rivals from retained people"
DEFINITIONS = {
    "similarity": Definition(
        text="Cosine between a photo and its person's enrolment (mean of the original encoder's features, that photo "
        "left out), in the space named by `measure`. Enrolment always uses the original encoder.",
        unit="cosine",
        reference=_SET,
    ),
    "impostor_similarity": Definition(
        text="Cosine between retained people's photos (original encoder) and the targets' enrolments: the level that "
        "forgetting aims for.",
        unit="cosine",
        reference="photos of retained people",
    ),
    "match_rate": Definition(
        text="Share of photos whose similarity exceeds the threshold that retained people's photos exceed at "
        "`false_match_rate`, threshold set for each enrolment.",
        unit="share",
        reference=_SET,
    ),
    "rank1": Definition(
        text="Share of photos, or of drawn pictures, whose nearest enrolment, among all retained people and their own, "
        "is their own.",
        unit="share",
        reference="photos or pictures of the role; the gallery is all retained people",
    ),
    "feature_cosine": Definition(
        text="Cosine between the tap's output of the edited and of the original encoder, same photo.",
        unit="cosine",
        reference=_TAP,
    ),
    "relative_change": Definition(
        text="Norm of the change of the tap's output, divided by the norm of the original's output.",
        unit="ratio",
        reference=_TAP,
    ),
    "centred_change": Definition(
        text="Norm of the change of the tap's output, divided by the norm of the original's deviation from the mean of "
        "retained people: 1 is as far as the average face, however alike raw features of all faces are.",
        unit="ratio",
        reference=_TAP,
    ),
}


@dataclass(frozen=True)
class PersonEvidence:
    """One person before and after.

    `original` and `edited` are features (n, d). Over the whole tap, photo by photo (n,): `cosine` between the two,
    `relative` change, and `centred` change. `seen` (n,) bool tells the photos that unlearning used.
    """

    original: Tensor
    edited: Tensor
    cosine: Tensor
    relative: Tensor
    centred: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Evidence:
    """All that verification looks at. `reference`: features (n_i, d) of people that only serve to fit the space."""

    targets: Sequence[PersonEvidence]
    retained: Sequence[PersonEvidence]
    reference: Sequence[Tensor]
    null_relative: Tensor

    @cached_property
    def space(self) -> IdentitySpace:
        """The space in which features are compared, fitted on people that are not measured where there are any."""
        return fit_space(self.reference or [person.original for person in self.retained])


@dataclass(frozen=True)
class Scores:
    """One person's photos against their enrolment: (n,) similarities, 0/1 matches and rank-1 hits, both states."""

    similarity: tuple[Tensor, Tensor]
    match: tuple[Tensor, Tensor]
    rank1: tuple[Tensor, Tensor]
    impostor: Tensor


def measure(
    evidence: Evidence,
    params: VerifyParams,
    seed: int,
    others: Sequence[Scores],
    labelled: Sequence[tuple[str, frozenset[int]]] = (),
) -> tuple[Figure, ...]:
    """Measure every figure that the evidence allows.

    Args:
        evidence: finite features before and after.
        others: what `retained_scores` gives of it.
        params: false-match rate, share of look-alikes, resamples.
        seed: decides the bootstrap.
        labelled: groups of retained people by their positions; what happens to their features is given apart.
    """
    space = evidence.space
    retained = [space(person.original) for person in evidence.retained]
    gallery = torch.stack([centroid(mapped) for mapped in retained])
    everyone = torch.cat(retained)
    rate = params.false_match_rate
    targets = [_target_scores(person, space, gallery, everyone, rate) for person in evidence.targets]
    alike = _look_alikes(evidence.targets, space, gallery, params.lookalike_share)
    groups: list[tuple[Role, Sequence[PersonEvidence], Sequence[Scores], Sequence[Tensor]]] = [
        ("target-seen", evidence.targets, targets, [person.seen for person in evidence.targets]),
        ("target-unseen", evidence.targets, targets, [~person.seen for person in evidence.targets]),
        ("look-alike", *_pick(evidence.retained, others, alike)),
        ("retained", *_pick(evidence.retained, others, range(len(others)))),
    ]
    collected = _Collector(space.kind, params.bootstrap, seed, rate)
    for role, people, scores, chosen in groups:
        states: tuple[tuple[State, int], ...] = (("original", 0), ("edited", 1))
        for state, position in states:
            for name in ("similarity", "match_rate", "rank1"):
                attribute = "match" if name == "match_rate" else name
                values = [getattr(s, attribute)[position][c] for s, c in zip(scores, chosen, strict=True)]
                collected.add(name, role, state, values)
        collected.add("feature_cosine", role, "change", [p.cosine[c] for p, c in zip(people, chosen, strict=True)])
        collected.add("relative_change", role, "change", [p.relative[c] for p, c in zip(people, chosen, strict=True)])
        collected.add("centred_change", role, "change", [p.centred[c] for p, c in zip(people, chosen, strict=True)])
    collected.add("impostor_similarity", "retained", "original", [scores.impostor for scores in targets])
    collected.add("relative_change", "null", "change", [evidence.null_relative])
    for group, positions in labelled:
        members = [person for place, person in enumerate(evidence.retained) if place in positions]
        collected.add("feature_cosine", "retained", "change", [person.cosine for person in members], group)
        collected.add("centred_change", "retained", "change", [person.centred for person in members], group)
    return tuple(collected.figures)


def retained_scores(evidence: Evidence, rate: float) -> list[Scores]:
    """Every retained person's photos against their own enrolment, at a false-match rate."""
    space = evidence.space
    retained = [space(person.original) for person in evidence.retained]
    gallery, everyone = torch.stack([centroid(mapped) for mapped in retained]), torch.cat(retained)
    return [_retained_scores(n, evidence.retained, space, gallery, everyone, rate) for n in range(len(retained))]


def share_removed(others: Sequence[Scores], params: VerifyParams) -> float | None:
    """Share of retained people whom the criteria on targets would call removed, were they the target.

    Of a retained person, a delta is the delta of another person. Only people whom the original encoder shows are asked;
    None without any.

    Args:
        others: what `retained_scores` gives.
        params: the criteria.
    """
    rates = [(float(score.match[0].nanmean()), float(score.match[1].nanmean())) for score in others]
    verdicts = [after <= params.max_match_unseen for before, after in rates if before >= params.min_original_match]
    return sum(verdicts) / len(verdicts) if verdicts else None


def _target_scores(
    person: PersonEvidence, space: IdentitySpace, gallery: Tensor, everyone: Tensor, rate: float
) -> Scores:
    original, edited = space(person.original), space(person.edited)
    pool = original[person.seen] if bool(person.seen.any()) else original
    places = person.seen.nonzero().flatten().tolist() if bool(person.seen.any()) else list(range(len(original)))
    enrolments = torch.stack(
        [
            centroid(_without(pool, places.index(i) if i in places else None))
            if len(pool) > 1 or i not in places
            else torch.full_like(original[0], torch.nan)
            for i in range(len(original))
        ]
    )
    return _score(original, edited, enrolments, gallery, everyone, rate, centroid(pool))


def _retained_scores(
    index: int, people: Sequence[PersonEvidence], space: IdentitySpace, gallery: Tensor, everyone: Tensor, rate: float
) -> Scores:
    original, edited = space(people[index].original), space(people[index].edited)
    start = sum(len(person.original) for person in people[:index])
    others = torch.cat([everyone[:start], everyone[start + len(original) :]])
    rivals = torch.cat([gallery[:index], gallery[index + 1 :]])
    if len(original) < 2 or not len(others):
        enrolments = torch.full_like(original, torch.nan)
    else:
        enrolments = torch.stack([centroid(_without(original, i)) for i in range(len(original))])
    return _score(original, edited, enrolments, rivals, others, rate, gallery[index])


def _score(
    original: Tensor, edited: Tensor, enrolments: Tensor, rivals: Tensor, impostors: Tensor, rate: float, whole: Tensor
) -> Scores:
    """Photos without an enrolment (their person's only photo) are left out, as NaN; `_Collector` drops them."""
    thresholds = torch.tensor([match_threshold(impostors @ e, rate) for e in enrolments], dtype=torch.float64)
    known = torch.isfinite(enrolments).all(1)

    def state(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        similarity = (features * enrolments).sum(1)
        match = (similarity > thresholds).double()
        hit = (similarity > (features @ rivals.T).max(1).values).double()
        unknown = torch.tensor(torch.nan, dtype=torch.float64)
        return similarity, torch.where(known, match, unknown), torch.where(known, hit, unknown)

    before, after = state(original), state(edited)
    return Scores((before[0], after[0]), (before[1], after[1]), (before[2], after[2]), impostors @ whole)


def _without(mapped: Tensor, index: int | None) -> Tensor:
    return mapped if index is None else torch.cat([mapped[:index], mapped[index + 1 :]])


def _look_alikes(targets: Sequence[PersonEvidence], space: IdentitySpace, gallery: Tensor, share: float) -> list[int]:
    """Return the retained people nearest to any target, as positions in the gallery."""
    count = max(1, round(share * len(gallery)))
    likeness = torch.stack([gallery @ centroid(space(person.original)) for person in targets]).amax(0)
    return sorted(likeness.topk(min(count, len(gallery))).indices.tolist())


def _pick(
    people: Sequence[PersonEvidence], scores: Sequence[Scores], which: Sequence[int]
) -> tuple[list[PersonEvidence], list[Scores], list[Tensor]]:
    every = [torch.ones(len(people[index].original), dtype=torch.bool) for index in which]
    return [people[index] for index in which], [scores[index] for index in which], every


class _Collector:
    """Turns values by person into figures, with intervals from one seeded generator a figure."""

    def __init__(self, measure: str, resamples: int, seed: int, rate: float) -> None:
        self.figures: list[Figure] = []
        self._measure, self._resamples, self._seed = f"tap features, {measure}", resamples, seed
        self._rate = rate

    def add(self, name: str, role: Role, state: State, values: Sequence[Tensor], group: str | None = None) -> None:
        rng = generator(self._seed, "bootstrap", name, role, state, group or "")
        found = estimated(
            values, self._resamples, rng, name=name, role=role, state=state, unit=DEFINITIONS[name].unit, group=group,
            measure=self._measure if state != "change" else "tap features",
            false_match_rate=self._rate if name == "match_rate" else None,
        )  # fmt: skip
        if found is not None:
            self.figures.append(found)


def find_figure(figures: Sequence[Figure], name: str, role: Role, state: State) -> Figure | None:
    """Return the figure of the features of that name, role and state, if it could be measured."""
    wanted = (name, role, state, None, None, None)
    return next(
        (f for f in figures if (f.name, f.role, f.state, f.generator, f.group, f.attack) == wanted),
        None,
    )
