"""Figures at encoder level: every photo compared with its person's enrolment, before and after the edit.

People are enrolled with the original encoder, because every generator that mounts it was trained on its output.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from ireu_cli.measuring.estimated import About, estimated
from ireu_cli.measuring.judgement import false_matches_at
from ireu_cli.measuring.matching import Compared, Evidence, PersonEvidence, Scores
from ireu_cli.params import VerifyParams
from ireu_cli.report import Definition, Figure, Role, State
from ireu_cli.support.made import Made
from ireu_cli.support.runtime import generator

_TAP = "the tap's output for photos of the role"
_SET = (
    "photos of the role; enrolments come from the original encoder, thresholds and other candidates from "
    "retained people"
)
DEFINITIONS = {
    "similarity": Definition(
        text="Cosine between a photo and its person's enrolment, in the space named by `measure`. The enrolment is "
        "the mean of the original encoder's features of the person's other photos.",
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
        text="Share of photos whose similarity exceeds a threshold. The threshold is set for each enrolment, so that "
        "retained people's photos exceed it at `false_match_rate`.",
        unit="share",
        reference=_SET,
    ),
    "rank1": Definition(
        text="Share of photos, or of drawn pictures, whose nearest enrolment is that of their own person, among all "
        "retained people and that person.",
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
        text="Norm of the change of the tap's output, divided by the norm of the original's deviation from the mean "
        "of retained people. 1 is the distance to the average face, even if the raw features of all faces are "
        "similar.",
        unit="ratio",
        reference=_TAP,
    ),
    "fnir": Definition(
        text="Share of the targets' photos that the edit moves no further (by `centred_change`) than a share "
        "`false_match_rate` of retained people's photos. It reads the edit as a search in the list of the people whom "
        "it removes: this is the false-negative identification rate (FNIR) at that false-positive identification rate "
        "(FPIR). Any change counts as a hit, also one that belongs to another target. Where fewer photos of others "
        "move at all, photos are ranked by how far they move.",
        unit="share",
        reference="photos of the role; the threshold comes from photos of retained people",
    ),
}
FPIRS = (0.001, 0.003, 0.01)
"""The false-positive identification rates of `fnir`."""

_ROUNDING = 1e-9
"""What a product of a rate and a number of photos may lack of a whole number."""
_CHANGES = {"feature_cosine": "cosine", "relative_change": "relative", "centred_change": "centred"}


def measure(
    evidence: Evidence,
    params: VerifyParams,
    seed: int,
    compared: Compared,
    labelled: Sequence[tuple[str, frozenset[int]]] = (),
) -> tuple[Figure, ...]:
    """Measure every figure that the evidence allows.

    Args:
        evidence: finite features before and after.
        compared: the result of `compare` on them.
        params: false-match rate, resamples.
        seed: decides the bootstrap.
        labelled: groups of retained people by their positions; the change of their features is reported separately.
    """
    collected = _Collector(evidence.space.kind, params.bootstrap, seed, params.false_match_rate)
    seen = [person.seen for person in evidence.targets]
    unseen = [~rows for rows in seen]
    changes = _Changes(evidence.retained, evidence.sizes)
    targets = _Changes(evidence.targets, [len(rows) for rows in seen])
    collected.add_scores("target-seen", compared.targets, seen)
    collected.add_changes("target-seen", targets, seen)
    collected.add_scores("target-unseen", compared.targets, unseen)
    collected.add_changes("target-unseen", targets, unseen)
    for rate, limit in _limits(changes.all_of("centred_change"), len(evidence.retained), params):
        for role, rows in _by_use(seen, unseen):
            still = [(~(moved > limit)).double() for moved in _chosen(targets.of("centred_change"), rows)]
            collected.add("fnir", role, "change", still, rate=rate)
    collected.add_scores("look-alike", list(compared.alike.values()))
    collected.add_changes("look-alike", changes, places=compared.look_alikes)
    collected.add_scores("retained", list(compared.retained.values()))
    collected.add_changes("retained", changes)
    collected.add("impostor_similarity", "retained", "original", compared.impostor)
    collected.add("relative_change", "null", "change", [evidence.null_relative])
    for group, positions in labelled:
        for name in ("feature_cosine", "centred_change"):
            collected.add(name, "retained", "change", changes.of(name, sorted(positions)), group)
    return tuple(collected.figures)


def _by_use(seen: Sequence[Tensor], unseen: Sequence[Tensor]) -> tuple[tuple[Role, Sequence[Tensor]], ...]:
    return ("target-seen", seen), ("target-unseen", unseen)


def _limits(moved: Tensor, people: int, params: VerifyParams) -> Iterator[tuple[float, float]]:
    """For each rate of `FPIRS` that there is enough evidence for, the change that so many photos of others exceed.

    Args:
        moved: float (n,), the change of retained people's photos.
        people: the number of retained people.
        params: how many photos, and pairs of people, a rate needs.
    """
    for rate in FPIRS:
        if false_matches_at(rate, len(moved), people, params) >= params.min_impostors_per_error:
            yield rate, float(moved.topk(math.floor(rate * len(moved) + _ROUNDING) + 1).values[-1])


def share_removed(others: Iterable[Scores], params: VerifyParams) -> float | None:
    """Share of retained people whom the criteria for targets would call removed if they were the target.

    For a retained person, the delta is that of another person. Only people whom the original encoder shows are counted;
    None without any.

    Args:
        others: scores of retained people.
        params: the limits.
    """
    rates = [(float(score.match[0].nanmean()), float(score.match[1].nanmean())) for score in others]
    verdicts = [after <= params.max_match_unseen for before, after in rates if before >= params.min_original_match]
    return sum(verdicts) / len(verdicts) if verdicts else None


class _Collector:
    """Turns values by person into figures, with intervals from one seeded generator a figure."""

    def __init__(self, measure: str, resamples: int, seed: int, rate: float) -> None:
        self.figures: list[Figure] = []
        self._measure, self._resamples, self._seed = f"tap features, {measure}", resamples, seed
        self._rate = rate

    def add_scores(self, role: Role, scores: Sequence[Scores], chosen: Sequence[Tensor] | None = None) -> None:
        """Add the figures that compare photos with people, for all photos or for chosen ones, bool (n,) a person."""
        states: tuple[State, State] = ("original", "edited")
        for position, state in enumerate(states):
            for name, attribute in (("similarity", "similarity"), ("match_rate", "match"), ("rank1", "rank1")):
                columns = [getattr(score, attribute)[position] for score in scores]
                self.add(name, role, state, _chosen(columns, chosen))

    def add_changes(
        self,
        role: Role,
        changes: "_Changes",
        chosen: Sequence[Tensor] | None = None,
        places: Sequence[int] | None = None,
    ) -> None:
        """Add the change of features, for all photos, chosen ones, bool (n,) a person, or people at some positions."""
        for name in _CHANGES:
            self.add(name, role, "change", _chosen(changes.of(name, places), chosen))

    def add(
        self,
        name: str,
        role: Role,
        state: State,
        values: Sequence[Tensor],
        group: str | None = None,
        rate: float | None = None,
    ) -> None:
        rng = generator(self._seed, "bootstrap", name, role, state, group or "", *([] if rate is None else [str(rate)]))
        about = About(
            name=name, role=role, state=state, unit=DEFINITIONS[name].unit, group=group,
            measure=self._measure if state != "change" else "tap features",
            false_match_rate=self._rate if name == "match_rate" else rate,
        )  # fmt: skip
        found = estimated(values, about, self._resamples, rng)
        if found is not None:
            self.figures.append(found)


class _Changes:
    """The change of features, by figure: only numbers, so that no features stay in memory for them."""

    def __init__(self, people: Sequence[PersonEvidence], sizes: Sequence[int]) -> None:
        self._ends = [0, *accumulate(sizes)]
        self._columns = {name: torch.empty(self._ends[-1]) for name in _CHANGES}
        for place, person in enumerate(people):
            for name, attribute in _CHANGES.items():
                self._columns[name][self._rows(place)] = getattr(person, attribute)

    def all_of(self, name: str) -> Tensor:
        """A figure's values of all photos: (photos,)."""
        return self._columns[name]

    def of(self, name: str, places: Sequence[int] | None = None) -> Sequence[Tensor]:
        """A figure's values (n,), for each person or for people at some positions."""
        column = self._columns[name]
        chosen = range(len(self._ends) - 1) if places is None else places
        return Made(chosen, lambda place: column[self._rows(place)])

    def _rows(self, place: int) -> slice:
        return slice(self._ends[place], self._ends[place + 1])


def _chosen(columns: Sequence[Tensor], chosen: Sequence[Tensor] | None) -> Sequence[Tensor]:
    return columns if chosen is None else [column[rows] for column, rows in zip(columns, chosen, strict=True)]


def find_figure(figures: Sequence[Figure], name: str, role: Role, state: State) -> Figure | None:
    """Return the figure of features with that name, role and state, if it could be measured."""
    wanted = (name, role, state, None, None, None)
    return next(
        (f for f in figures if (f.name, f.role, f.state, f.generator, f.group, f.attack) == wanted),
        None,
    )
