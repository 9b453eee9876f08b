"""Figures of the pictures that a generator draws with the original and with the edited encoder.

A recogniser judges: unit vectors of faces, compared by cosine. A photo or picture without a face has no vector (NaN);
it is left out of the figures on identity, and counted in `face_found` and `photo_face_found`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.maths.identity import centroid, match_threshold
from ireu_cli.maths.stats import Interval, estimate, interval, resampled_weights
from ireu_cli.params import VerifyParams
from ireu_cli.report import Figure, Role, State
from ireu_cli.runtime import generator

PICTURE_DEFINITIONS = {
    "id_original": "Recogniser similarity of a drawn picture and the photo it was drawn from.",
    "id_impostor": "Recogniser similarity of retained people's pictures (original encoder) and other retained people's "
    "photos: the level that forgetting aims for.",
    "id_generated": "Recogniser similarity of the pictures drawn before and after, from the same photo, prompt and "
    "noise.",
    "delta_id": "id_generated of retained people less id_generated of the targets.",
    "reidentified": "Share of pictures whose similarity to their person's enrolment (mean over all of the person's "
    "photos) exceeds the threshold that retained people's photos exceed at the configured false-match rate, threshold "
    "set for each enrolment.",
    "psnr": "Peak signal-to-noise ratio between the pictures drawn before and after, in dB, at most 60.",
    "ssim": "Structural similarity between the pictures drawn before and after.",
    "face_found": "Share of drawn pictures in which the face check finds a face.",
    "photo_face_found": "Share of the photos drawn from in which the face check finds a face.",
    "prompt_adherence": "Share of pictures drawn with an edit that show it, measured on the picture.",
}

_UNITS = {"psnr": "dB", "ssim": "ratio", "id_original": "cosine", "id_generated": "cosine", "id_impostor": "cosine"}
_STATES: tuple[State, State] = ("original", "edited")


@dataclass(frozen=True)
class PersonPictures:
    """The n pictures of one person in one role, in two states.

    `position` is the person's place among the retained people, None for a target. Unit vectors: `photos` (k, d) of all
    of the person's photos that show a face; `own` (n, d) of the photo behind each picture; `original` and `edited`
    (n, d) of the pictures; rows are NaN where there is no face. `photo_numbers` (n,) tells pictures of one photo.
    `psnr` and `ssim` (n,) compare the states; `edits` (n,) names what was asked for, and `adheres` (n, 2) says whether
    the picture shows it before and after: 1, 0, or NaN where it cannot be measured.
    """

    position: int | None
    photos: Tensor
    own: Tensor
    original: Tensor
    edited: Tensor
    photo_numbers: Tensor
    psnr: Tensor
    ssim: Tensor
    edits: Sequence[str | None]
    adheres: Tensor


@dataclass(frozen=True)
class GeneratorEvidence:
    """All that was drawn by one generator. `retained_photos`: unit vectors (k, d) of each retained person's photos."""

    generator: str
    recogniser: str
    groups: Mapping[Role, Sequence[PersonPictures]]
    retained_photos: Sequence[Tensor]


def measure_pictures(evidence: GeneratorEvidence, params: VerifyParams, seed: int) -> tuple[Figure, ...]:
    """Measure every figure that the pictures allow.

    Args:
        evidence: what was drawn and how it was judged.
        params: false-match rate, resamples.
        seed: decides the bootstrap.
    """
    collected = _Collector(evidence, params.bootstrap, seed)
    for role, people in evidence.groups.items():
        collected.add("photo_face_found", role, "original", [_found(_each_photo(person)) for person in people])
        for state in _STATES:
            vectors = [getattr(person, state) for person in people]
            likeness = [(v * person.own).sum(1) for v, person in zip(vectors, people, strict=True)]
            matched = [_matched(v, p, evidence, params) for v, p in zip(vectors, people, strict=True)]
            collected.add("id_original", role, state, likeness)
            collected.add("reidentified", role, state, matched)
            collected.add("face_found", role, state, [_found(v) for v in vectors])
            _add_adherence(collected, role, state, people)
        collected.add("id_generated", role, "change", [_kept(person) for person in people])
        for name in ("psnr", "ssim"):
            collected.add(name, role, "change", [getattr(person, name) for person in people])
    retained = evidence.groups.get("retained", ())
    collected.add("id_impostor", "retained", "original", [_impostors(person, evidence) for person in retained])
    for role in ("target-seen", "target-unseen"):
        collected.add_difference(role, [_kept(p) for p in retained], [_kept(p) for p in evidence.groups.get(role, ())])
    return tuple(collected.figures)


def _found(vectors: Tensor) -> Tensor:
    return torch.isfinite(vectors).all(1).double()


def _each_photo(person: PersonPictures) -> Tensor:
    """The vector of each photo once, however many pictures were drawn from it: (photos, d)."""
    numbers = person.photo_numbers.tolist()
    return person.own[[numbers.index(number) for number in dict.fromkeys(numbers)]]


def _kept(person: PersonPictures) -> Tensor:
    return (person.original * person.edited).sum(1)


def _others(person: PersonPictures, evidence: GeneratorEvidence) -> Tensor:
    photos = [rows for place, rows in enumerate(evidence.retained_photos) if place != person.position and len(rows)]
    return torch.cat(photos) if photos else person.photos[:0]


def _matched(vectors: Tensor, person: PersonPictures, evidence: GeneratorEvidence, params: VerifyParams) -> Tensor:
    others = _others(person, evidence)
    if not len(person.photos) or not len(others):
        return torch.full((len(vectors),), torch.nan, dtype=torch.float64)
    enrolment = centroid(person.photos.double())
    threshold = match_threshold(others.double() @ enrolment, params.false_match_rate)
    scores = vectors.double() @ enrolment
    return torch.where(torch.isfinite(scores), (scores > threshold).double(), scores)


def _impostors(person: PersonPictures, evidence: GeneratorEvidence) -> Tensor:
    others = _others(person, evidence)
    return person.original @ others.mean(0) if len(others) else torch.empty(0)


def _add_adherence(collected: "_Collector", role: Role, state: State, people: Sequence[PersonPictures]) -> None:
    column = _STATES.index(state)
    collected.add("prompt_adherence", role, state, [person.adheres[:, column] for person in people])
    for edit in sorted({edit for person in people for edit in person.edits if edit is not None}):
        chosen = [torch.tensor([asked == edit for asked in person.edits]) for person in people]
        values = [person.adheres[:, column][rows] for person, rows in zip(people, chosen, strict=True)]
        collected.add("prompt_adherence", role, state, values, edit)


class _Collector:
    """Turns values by person into figures, with intervals from one seeded generator a figure."""

    def __init__(self, evidence: GeneratorEvidence, resamples: int, seed: int) -> None:
        self.figures: list[Figure] = []
        self._evidence, self._resamples, self._seed = evidence, resamples, seed

    def add(self, name: str, role: Role, state: State, values: Sequence[Tensor], edit: str | None = None) -> None:
        rng = generator(self._seed, "bootstrap", self._evidence.generator, name, role, state, edit or "")
        found = estimate([value[torch.isfinite(value)] for value in values], self._resamples, rng)
        if found is not None:
            span = Interval(found.value, found.low, found.high)
            self._keep(name, role, state, span, found.photos, found.people, edit)

    def add_difference(self, role: Role, retained: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add `delta_id`, both groups resampled over their people; no interval where one has fewer than three."""
        rng = generator(self._seed, "bootstrap", self._evidence.generator, "delta_id", role)
        means, pictures, people = [], 0, 0
        for group in (retained, targets):
            values = [finite for value in group if len(finite := value[torch.isfinite(value)])]
            if not values:
                return
            sums, counts = (torch.tensor([float(f(v)) for v in values], dtype=torch.float64) for f in (torch.sum, len))
            weights = resampled_weights(len(values), self._resamples, rng)
            means.append((weights @ sums) / (weights @ counts))
            pictures, people = pictures + int(counts.sum()), people + len(values)
        rows = min(len(mean) for mean in means)
        span = interval(means[0][:rows] - means[1][:rows])
        if span is not None:
            self._keep("delta_id", role, "change", span, pictures, people, None)

    def _keep(
        self, name: str, role: Role, state: State, span: Interval, photos: int, people: int, edit: str | None
    ) -> None:
        by_recogniser = name.startswith("id_") or name in {"delta_id", "reidentified"}
        measures = {"psnr": "pixels", "ssim": "pixels", "prompt_adherence": "pixels and landmarks"}
        self.figures.append(
            Figure(
                name=name,
                role=role,
                state=state,
                measure=self._evidence.recogniser if by_recogniser else measures.get(name, "face check"),
                generator=self._evidence.generator,
                edit=edit,
                value=span.value,
                low=span.low,
                high=span.high,
                photos=photos,
                people=people,
                unit="cosine" if name == "delta_id" else _UNITS.get(name, "share"),
            )
        )
