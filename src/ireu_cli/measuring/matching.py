"""Compare photos with their person's enrolment, before and after the edit: similarity, matches, nearest person.

All photos of targets are compared, but only a limited number of photos of retained people. Comparing each photo of many
people with all others would take time that grows with the square of their number, and would tell nothing more.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ireu_cli.maths.identity import IdentitySpace, centroid, fit_space
from ireu_cli.params import VerifyParams
from ireu_cli.support.made import Made, in_pieces
from ireu_cli.support.runtime import generator

MOST_COMPARED = 2_000
"""The most photos of retained people that are compared with their enrolments, and the same for look-alikes."""
MOST_IMPOSTORS = 20_000
"""The most photos of retained people that set thresholds: at a false-match rate of 1e-3, 20 of them lie above."""
_PIECE = 4096
"""The number of photos of retained people that are mapped at once."""
_CELLS = 250_000
"""The most similarities that are held at once."""


@dataclass(frozen=True)
class PersonEvidence:
    """One person before and after the edit.

    `original` and `edited` are features (n, d). Over the whole tap, for each photo (n,): `cosine` between the two,
    `relative` change, and `centred` change. `seen` (n,) bool marks the photos that unlearning used.
    """

    original: Tensor
    edited: Tensor
    cosine: Tensor
    relative: Tensor
    centred: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Impostors:
    """Photos of retained people that set thresholds: unit vectors (n, d) in the space, and the person of each (n,)."""

    vectors: Tensor
    people: Tensor


@dataclass(frozen=True)
class Survey:
    """The number of photos of each retained person, and whether all features are finite before and after."""

    sizes: tuple[int, ...]
    finite_before: bool
    finite_after: bool


@dataclass(frozen=True)
class Evidence:
    """All features that verification looks at. `reference`: features (n_i, d) of people that only fit the space.

    Retained people and those of the reference may be read again on every iteration. `known_used`: share of the used
    photos of which a small picture is known, so that their copies can be found.
    """

    targets: Sequence[PersonEvidence]
    retained: Sequence[PersonEvidence]
    reference: Sequence[Tensor]
    null_relative: Tensor
    known_used: float = 1.0

    @cached_property
    def space(self) -> IdentitySpace:
        """The space in which features are compared, fitted on people that are not measured, if there are any."""
        return fit_space(self.reference or self._originals)

    @property
    def _originals(self) -> Sequence[Tensor]:
        return Made(self.retained, lambda person: person.original)

    @cached_property
    def survey(self) -> Survey:
        """The results of one pass over everybody."""
        sizes, before, after = list[int](), True, True
        for person in chain(self.retained, self.targets):
            sizes.append(len(person.original))
            before &= bool(torch.isfinite(person.original).all())
            after &= bool(torch.isfinite(person.edited).all()) and bool(torch.isfinite(person.relative).all())
        return Survey(tuple(sizes[: len(self.retained)]), before, after)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of photos of each retained person."""
        return self.survey.sizes

    @cached_property
    def impostors(self) -> Impostors:
        """Photos of retained people with the original encoder: all, or a random sample of limited size."""
        sizes = torch.tensor(self.sizes)
        owner = torch.arange(len(sizes)).repeat_interleave(sizes)
        chosen = _some(len(owner), MOST_IMPOSTORS, "impostors")
        people = owner[chosen]
        places = chosen - (sizes.cumsum(0) - sizes)[people]
        parts = zip(torch.split(people, _PIECE), torch.split(places, _PIECE), strict=True)
        return Impostors(_joined((self.space(self._photos(*part)) for part in parts), len(chosen)), people)

    def _photos(self, people: Tensor, places: Tensor) -> Tensor:
        """Some photos with the original encoder, (n, d), of retained people in ascending order."""
        owners, counts = torch.unique_consecutive(people, return_counts=True)
        chosen = zip(owners.tolist(), torch.split(places, counts.tolist()), strict=True)
        return torch.cat([self.retained[person].original[mine] for person, mine in chosen])

    def galleries(self) -> Iterator[tuple[int, Tensor]]:
        """Iterate over the enrolments of retained people, (n, d), some at a time, with the position of the first."""
        start = 0
        for people in in_pieces(self._originals, _PIECE):
            mapped = torch.split(self.space(torch.cat(people)), [len(person) for person in people])
            yield start, torch.stack([centroid(person) for person in mapped])
            start += len(people)


@dataclass(frozen=True)
class Scores:
    """One person's photos against their enrolment: (n,) similarities, 0/1 matches and rank-1 hits, in both states.

    The only photo of a person has no enrolment, so its matches and hits are NaN.
    """

    similarity: tuple[Tensor, Tensor]
    match: tuple[Tensor, Tensor]
    rank1: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Compared:
    """Scores of targets, of randomly drawn `retained` people and of look-alikes (`alike`), by their positions.

    `look_alikes` are the positions of all retained people nearest to a target; `impostor` holds for each target the
    similarity of other people's photos to the target's enrolment.
    """

    targets: Sequence[Scores]
    retained: dict[int, Scores]
    alike: dict[int, Scores]
    look_alikes: Sequence[int]
    impostor: Sequence[Tensor]


@dataclass(frozen=True)
class _Probe:
    """A person whose photos are compared: mapped features (n, d) in both states, and an enrolment for each photo.

    `position` is the position among retained people, -1 for a target.
    """

    position: int
    original: Tensor
    edited: Tensor
    enrolments: Tensor


def compare(evidence: Evidence, params: VerifyParams) -> Compared:
    """Compare photos of targets, and of a sufficient number of retained people.

    Args:
        evidence: finite features before and after.
        params: false-match rate, share of look-alikes.
    """
    space = evidence.space
    pools = [_pool(person, space(person.original)) for person in evidence.targets]
    whole = torch.stack([centroid(pool) for pool, _ in pools])
    likeness = _likeness(evidence)
    count = min(max(1, round(params.lookalike_share * len(likeness))), len(likeness))
    alike = sorted(likeness.topk(count).indices.tolist())
    sizes = evidence.sizes
    everybody = _people(range(len(sizes)), sizes, "retained")
    nearest = _people(alike, sizes, "look-alikes")
    probes = [_target(person, space, *pool) for person, pool in zip(evidence.targets, pools, strict=True)]
    measured = sorted({*everybody, *nearest})
    probes += [_retained(evidence, position) for position in measured]
    scores = _scores(evidence, probes, params.false_match_rate)
    targets, others = scores[: len(pools)], dict(zip(measured, scores[len(pools) :], strict=True))
    return Compared(
        targets,
        {position: others[position] for position in everybody},
        {position: others[position] for position in nearest},
        alike,
        list((evidence.impostors.vectors @ whole.T).T),
    )


def _joined(parts: Iterable[Tensor], count: int) -> Tensor:
    """As `torch.cat`, of parts with `count` rows in all, of which only one is in memory beside the result."""
    found, done = torch.empty(0), 0
    for part in parts:
        if not done:
            found = part.new_empty(count, *part.shape[1:])
        found[done : done + len(part)] = part
        done += len(part)
    return found


def _some(count: int, most: int, name: str) -> Tensor:
    """Positions of all items, or of a random sample of them, ascending."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator(0, "compared", name))[:most].sort().values


def _people(positions: Sequence[int], sizes: Sequence[int], name: str) -> list[int]:
    """Random people with enough photos together; everybody if that takes all."""
    if sum(sizes[position] for position in positions) <= MOST_COMPARED:
        return list(positions)
    order = torch.randperm(len(positions), generator=generator(0, "compared", name)).tolist()
    chosen, photos = [], 0
    for place in order:
        chosen.append(positions[place])
        photos += sizes[positions[place]]
        if photos >= MOST_COMPARED:
            break
    return sorted(chosen)


def _likeness(evidence: Evidence) -> Tensor:
    """The similarity of each retained person to the nearest target: (people,)."""
    enrolled = torch.stack([centroid(evidence.space(person.original)) for person in evidence.targets])
    return torch.cat([(gallery @ enrolled.T).amax(1) for _, gallery in evidence.galleries()])


def _pool(person: PersonEvidence, mapped: Tensor) -> tuple[Tensor, list[int]]:
    """The photos that enrol a target, those that unlearning used or else all, and their positions among all."""
    chosen = person.seen if bool(person.seen.any()) else torch.ones(len(mapped), dtype=torch.bool)
    return mapped[chosen], chosen.nonzero().flatten().tolist()


def _target(person: PersonEvidence, space: IdentitySpace, pool: Tensor, places: list[int]) -> _Probe:
    original = space(person.original)
    enrolments = centroid(pool).expand(len(original), -1).clone()
    enrolments[places] = _leaving_out(pool)
    return _Probe(-1, original, space(person.edited), enrolments)


def _retained(evidence: Evidence, position: int) -> _Probe:
    person = evidence.retained[position]
    original = evidence.space(person.original)
    return _Probe(position, original, evidence.space(person.edited), _leaving_out(original))


def _leaving_out(mapped: Tensor) -> Tensor:
    """For each photo, the enrolment from the person's other photos: (n, d); NaN for a single photo."""
    if len(mapped) < 2:
        return torch.full_like(mapped, torch.nan)
    return normalize(mapped.sum(0) - mapped, dim=1)


def _scores(evidence: Evidence, probes: Sequence[_Probe], rate: float) -> list[Scores]:
    sizes = [len(probe.original) for probe in probes]
    owner = torch.tensor([probe.position for probe in probes]).repeat_interleave(torch.tensor(sizes))
    before, after = (torch.cat([getattr(probe, state) for probe in probes]) for state in ("original", "edited"))
    enrolments = torch.cat([probe.enrolments for probe in probes])
    limits = _thresholds(enrolments, owner, evidence.impostors, rate)
    rivals = _rivals(evidence, (before, after), owner)
    known = torch.isfinite(enrolments).all(1) & torch.isfinite(limits)
    columns = []
    for features, rival in zip((before, after), rivals, strict=True):
        similarity = (features * enrolments).sum(1)
        for limit in (limits, rival):
            columns.append(torch.where(known, (similarity > limit).double(), torch.nan))
        columns.append(similarity)
    parts = [torch.split(column, sizes) for column in columns]
    return [
        Scores((parts[2][n], parts[5][n]), (parts[0][n], parts[3][n]), (parts[1][n], parts[4][n]))
        for n in range(len(probes))
    ]


def _thresholds(enrolments: Tensor, owner: Tensor, impostors: Impostors, rate: float) -> Tensor:
    """For each enrolment, the similarity that a share of other people's photos exceeds: (n,); NaN without others."""
    # Allocate first: small results between large freed blocks would make these too short for the next ones.
    found = torch.empty_like(enrolments[:, 0])
    at_once = max(1, _CELLS // len(impostors.people))
    for limits, part, own in zip(*(torch.split(t, at_once) for t in (found, enrolments, owner)), strict=True):
        scores = part @ impostors.vectors.T
        mine = impostors.people == own[:, None]
        others = (~mine).sum(1)
        place = (rate * others).long().clamp(max=others - 1)
        highest = scores.masked_fill(mine, -torch.inf).topk(int(place.max().clamp(min=0)) + 1).values
        limits[:] = highest.gather(1, place.clamp(min=0)[:, None])[:, 0].masked_fill(others == 0, torch.nan)
    return found


def _rivals(evidence: Evidence, states: tuple[Tensor, Tensor], owner: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity of each photo to the nearest enrolment of another retained person, in both states: (n,) each."""
    best = [torch.full((len(owner),), -torch.inf, dtype=torch.float64) for _ in states]
    for start, gallery in evidence.galleries():
        step = max(1, _CELLS // len(gallery))
        for rows in torch.split(torch.arange(len(owner)), step):
            own = owner[rows] - start
            is_here = ((own >= 0) & (own < len(gallery))).nonzero().flatten()
            for state, highest in zip(states, best, strict=True):
                scores = state[rows] @ gallery.T
                scores[is_here, own[is_here]] = -torch.inf
                highest[rows] = torch.maximum(highest[rows], scores.max(1).values)
    return best[0], best[1]
