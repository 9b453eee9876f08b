"""Figures of the pictures that a generator draws with the original and with the edited encoder.

Recognisers judge by the cosine between unit vectors of faces. A photo or picture without a face has no vector (NaN). It
is left out of the figures on identity and counted in `face_found` and `photo_face_found`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.maths.identity import centroid
from ireu_cli.maths.stats import interval, weights_in_parts
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence, PersonPictures
from ireu_cli.measuring.estimated import About, estimated
from ireu_cli.measuring.galleries import matched
from ireu_cli.params import VerifyParams
from ireu_cli.report import Definition, Figure, Role, State
from ireu_cli.support.runtime import generator
from ireu_cli.values import STATES

_DRAWN = "pictures of the role, each from its photo, prompt and noise"
_PAIRED = "pictures of the role drawn before and after, from the same photo, prompt and noise"
PICTURE_DEFINITIONS = {
    "id_original": Definition(
        text="Recogniser similarity between a drawn picture and the photo that it was drawn from.",
        unit="cosine",
        reference=_DRAWN,
    ),
    "id_impostor": Definition(
        text="Recogniser similarity between retained people's pictures (original encoder) and other retained "
        "people's photos: the level that forgetting aims for.",
        unit="cosine",
        reference="pictures of retained people, against all photos of the others",
    ),
    "id_generated": Definition(
        text="Recogniser similarity between the pictures drawn before and after.", unit="cosine", reference=_PAIRED
    ),
    "delta_id": Definition(
        text="id_generated of retained people minus id_generated of the targets.",
        unit="cosine",
        reference="pictures of retained people and of the role",
    ),
    "reidentified": Definition(
        text="Share of pictures whose similarity to their person's enrolment (the mean of all of the person's "
        "photos) exceeds a threshold. The threshold is set for each enrolment, so that retained people's photos "
        "exceed it at `false_match_rate`.",
        unit="share",
        reference=_DRAWN + "; thresholds come from all photos of other retained people",
    ),
    "rank1": Definition(
        text="Share of pictures whose nearest enrolment is that of their own person, among all retained people and "
        "that person.",
        unit="share",
        reference=_DRAWN + "; the candidates are all retained people with a face",
    ),
    "linked_across": Definition(
        text="Recogniser similarity between pictures of one person that were drawn from different photos. Where it is "
        "above linked_impostor after the edit, the person has a new face that can be followed.",
        unit="cosine",
        reference=_DRAWN + ", against the person's pictures of other photos",
    ),
    "linked_within": Definition(
        text="The same between pictures that were drawn from one photo, with other noise or another prompt.",
        unit="cosine",
        reference=_DRAWN + ", against the other pictures of its photo",
    ),
    "linked_impostor": Definition(
        text="Recogniser similarity between pictures of different people (retained people, original encoder).",
        unit="cosine",
        reference="pictures of retained people, against those of the others",
    ),
    "psnr": Definition(
        text="Peak signal-to-noise ratio between the pictures drawn before and after, at most 60.",
        unit="dB",
        reference=_PAIRED,
    ),
    "ssim": Definition(
        text="Structural similarity between the pictures drawn before and after.", unit="ratio", reference=_PAIRED
    ),
    "face_found": Definition(
        text="Share of drawn pictures in which the face check finds a face.", unit="share", reference=_DRAWN
    ),
    "photo_face_found": Definition(
        text="Share of the photos behind the pictures in which the face check finds a face.",
        unit="share",
        reference="photos of the role that pictures were drawn from",
    ),
    "prompt_adherence": Definition(
        text="Share of pictures whose prompt asks for an edit and that show it, measured on the picture.",
        unit="share",
        reference="pictures of the role whose prompt asks for an edit",
    ),
}
"""The meaning of each figure. (`rank1` is also a figure of features.)"""

_MEASURES = {
    "psnr": "torchmetrics",
    "ssim": "torchmetrics",
    "prompt_adherence": "pixels and landmarks",
    "face_found": "face check",
    "photo_face_found": "face check",
}
"""The measure of figures that no recogniser measures."""


def measure_pictures(
    evidence: GeneratorEvidence,
    params: VerifyParams,
    seed: int,
    labelled: Sequence[tuple[str, frozenset[int]]] = (),
) -> tuple[Figure, ...]:
    """Measure every figure that the pictures allow.

    Args:
        evidence: the pictures and their judgements.
        params: false-match rates, resamples.
        seed: decides the bootstrap.
        labelled: groups of retained people by their positions; some figures are reported for them separately.
    """
    collected = _Collector(evidence, params.bootstrap, seed)
    for role, people in evidence.groups.items():
        _add_identity(collected, role, people, evidence, params)
        if evidence.first:
            _add_plain(collected, role, people)
    retained = evidence.groups.get("retained", ())
    collected.add("id_impostor", "retained", "original", [_impostors(person, evidence) for person in retained])
    collected.add("linked_impostor", "retained", "original", _strangers(retained))
    for role in ("target-seen", "target-unseen"):
        collected.add_difference(role, [_kept(p) for p in retained], [_kept(p) for p in evidence.groups.get(role, ())])
    for group, positions in labelled:
        chosen = [p for role in ("retained", "look-alike") for p in evidence.groups.get(role, ())]
        _add_group(collected, group, [p for p in chosen if p.position in positions], evidence)
    return tuple(collected.figures)


def rates_of(photos: int, params: VerifyParams) -> list[float]:
    """The false-match rates at which matches are counted: the configured one, and lower ones if n photos allow."""
    lower = [rate for rate in params.further_rates if photos * rate >= params.min_impostors_per_error]
    return list(dict.fromkeys([params.false_match_rate, *lower]))


def _add_identity(
    collected: "_Collector",
    role: Role,
    people: Sequence[PersonPictures],
    evidence: GeneratorEvidence,
    params: VerifyParams,
) -> None:
    rates = rates_of(sum(len(rows) for rows in evidence.retained_photos), params)
    for state in STATES:
        vectors = [getattr(person, state) for person in people]
        collected.add("id_original", role, state, [(v * p.own).sum(1) for v, p in zip(vectors, people, strict=True)])
        for rate in rates:
            hits = [matched(v, evidence.enrolment(p, rate)) for v, p in zip(vectors, people, strict=True)]
            collected.add("reidentified", role, state, hits, rate=rate)
        collected.add("rank1", role, state, [_nearest(v, p, evidence) for v, p in zip(vectors, people, strict=True)])
        for name, within in (("linked_across", False), ("linked_within", True)):
            pairs = [(v, p.photo_numbers) for v, p in zip(vectors, people, strict=True)]
            collected.add(name, role, state, [_linked(*pair, within=within) for pair in pairs])
    collected.add("id_generated", role, "change", [_kept(person) for person in people])


def _add_plain(collected: "_Collector", role: Role, people: Sequence[PersonPictures]) -> None:
    collected.add("photo_face_found", role, "original", [_found(_each_photo(person)) for person in people])
    for state in STATES:
        column = STATES.index(state)
        collected.add("face_found", role, state, [person.faces[:, column].double() for person in people])
        _add_adherence(collected, role, state, people)
    for name in ("psnr", "ssim"):
        collected.add(name, role, "change", [getattr(person, name) for person in people])


def _add_group(
    collected: "_Collector", group: str, people: Sequence[PersonPictures], evidence: GeneratorEvidence
) -> None:
    collected.add("id_generated", "retained", "change", [_kept(person) for person in people], group=group)
    if evidence.first:
        for name in ("psnr", "ssim"):
            collected.add(name, "retained", "change", [getattr(person, name) for person in people], group=group)
        edited = [person.faces[:, 1].double() for person in people]
        collected.add("face_found", "retained", "edited", edited, group=group)


def _found(vectors: Tensor) -> Tensor:
    return torch.isfinite(vectors).all(1).double()


def _each_photo(person: PersonPictures) -> Tensor:
    """The vector of each photo once, however many pictures were drawn from it: (photos, d)."""
    numbers = person.photo_numbers.tolist()
    first = {number: place for place, number in reversed(list(enumerate(numbers)))}
    return person.own[[first[number] for number in dict.fromkeys(numbers)]]


def _kept(person: PersonPictures) -> Tensor:
    return (person.original * person.edited).sum(1)


def _nearest(vectors: Tensor, person: PersonPictures, evidence: GeneratorEvidence) -> Tensor:
    gallery = evidence.gallery
    rivals = gallery.enrolments[gallery.people != (-1 if person.position is None else person.position)]
    if not len(person.photos) or not len(rivals):
        return torch.full((len(vectors),), torch.nan, dtype=torch.float64)
    scores = vectors.double() @ centroid(person.photos.double())
    best = (vectors.double() @ rivals.T).max(1).values
    return torch.where(torch.isfinite(scores), (scores > best).double(), scores)


def _linked(vectors: Tensor, photos: Tensor, *, within: bool) -> Tensor:
    """The mean similarity of each picture with others of the person, from the same photo or from others: (n,).

    NaN where there is none. `photos` (n,) says which photo a picture was drawn from.
    """
    likeness, same = vectors.double() @ vectors.double().T, photos[:, None] == photos[None]
    others = (same & ~torch.eye(len(photos), dtype=torch.bool)) if within else ~same
    return likeness.masked_fill(~others, torch.nan).nanmean(1)


def _strangers(people: Sequence[PersonPictures]) -> list[Tensor]:
    """For each person, the mean similarity of each picture with all other people's: (n,) each."""
    own = [person.original.double() for person in people]
    found = [vectors[torch.isfinite(vectors).all(1)] for vectors in own]
    total = sum((vectors.sum(0) for vectors in found), torch.zeros(()))
    count = sum(map(len, found))
    return [
        vectors @ (total - part.sum(0)) / (count - len(part)) if count > len(part) else torch.empty(0)
        for vectors, part in zip(own, found, strict=True)
    ]


def _impostors(person: PersonPictures, evidence: GeneratorEvidence) -> Tensor:
    others = evidence.gallery.without(person.position)
    return person.original.double() @ others.mean(0) if len(others) else torch.empty(0)


def _add_adherence(collected: "_Collector", role: Role, state: State, people: Sequence[PersonPictures]) -> None:
    column = STATES.index(state)
    shows = [_shows(person)[:, column] for person in people]
    collected.add("prompt_adherence", role, state, shows)
    for edit in sorted({edit for person in people for edit in person.edits if edit is not None}):
        chosen = [torch.tensor([asked == edit for asked in person.edits]) for person in people]
        values = [answers[rows] for answers, rows in zip(shows, chosen, strict=True)]
        collected.add("prompt_adherence", role, state, values, edit=edit)


def _shows(person: PersonPictures) -> Tensor:
    """`adheres` in pairs: an edit that could be measured before but not after counts as not shown after."""
    before, after = person.adheres.unbind(1)
    lost = torch.isfinite(before) & torch.isnan(after)
    after = torch.where(lost, torch.zeros_like(after), torch.where(torch.isnan(before), before, after))
    return torch.stack([before, after], 1)


class _Collector:
    """Turns values by person into figures, with intervals from one seeded generator a figure."""

    def __init__(self, evidence: GeneratorEvidence, resamples: int, seed: int) -> None:
        self.figures: list[Figure] = []
        self._evidence, self._resamples, self._seed = evidence, resamples, seed

    def add(
        self,
        name: str,
        role: Role,
        state: State,
        values: Sequence[Tensor],
        *,
        edit: str | None = None,
        group: str | None = None,
        rate: float | None = None,
    ) -> None:
        rng = self._rng(name, role, state, edit or "", group or "", str(rate))
        about = About(
            name=name, role=role, state=state, generator=self._evidence.generator,
            measure=_MEASURES.get(name, self._evidence.recogniser), unit=PICTURE_DEFINITIONS[name].unit,
            edit=edit, group=group, false_match_rate=rate,
        )  # fmt: skip
        found = estimated(values, about, self._resamples, rng)
        if found is not None:
            self.figures.append(found)

    def add_difference(self, role: Role, retained: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add `delta_id`, with both groups resampled over people; no interval if one group has fewer than three."""
        rng = self._rng("delta_id", role)
        means, pictures, people = [], 0, 0
        for group in (retained, targets):
            values = [finite for value in group if len(finite := value[torch.isfinite(value)])]
            if not values:
                return
            sums, counts = (torch.tensor([float(f(v)) for v in values], dtype=torch.float64) for f in (torch.sum, len))
            parts = weights_in_parts(len(values), self._resamples, rng)
            means.append(torch.cat([(weights @ sums) / (weights @ counts) for weights in parts]))
            pictures, people = pictures + int(counts.sum()), people + len(values)
        rows = min(len(mean) for mean in means)
        span = interval(means[0][:rows] - means[1][:rows])
        if span is not None:
            self.figures.append(
                Figure(
                    name="delta_id",
                    role=role,
                    state="change",
                    measure=self._evidence.recogniser,
                    generator=self._evidence.generator,
                    value=span.value,
                    low=span.low,
                    high=span.high,
                    photos=pictures,
                    people=people,
                    unit=PICTURE_DEFINITIONS["delta_id"].unit,
                )
            )

    def _rng(self, *names: str) -> torch.Generator:
        return generator(self._seed, "bootstrap", self._evidence.generator, self._evidence.recogniser, *names)
