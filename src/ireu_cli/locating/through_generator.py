"""Locate with drawn pictures: the saliency of each photo, and interchanges between people."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ireu_cli.drawing.studio import Studio
from ireu_cli.encodings.lens import Lens, steady
from ireu_cli.encodings.rows import chunks
from ireu_cli.locating.interchanged import Exchanged, Interchanged, beside_random, measure, record
from ireu_cli.locating.saliency import photo_saliency
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import FeatureMask, Json, People, Photo

_SALIENCY_VERSION = 1
"""Raise it when the same photos give other saliencies, so that old and new rows are not mixed."""

PhotoPair = tuple[Photo, Photo]
"""A photo of A and one of B, two different people."""


def saliency_rows(
    session: Session, lens: Lens, studio: Studio, photos: Sequence[Photo], others: People
) -> list[Tensor | None]:
    """Saliency of each encoded photo, float32 (d,), or None if no picture drawn from it has a face.

    Rows are kept in the run folder by content, so that an interrupted step continues where it stopped.

    Args:
        session: the run.
        lens: the encoder, with photos and others encoded.
        studio: the generator with its judges.
        photos: the photos to score.
        others: the people whose mean is subtracted from a feature.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    session.executor.leave()
    params = session.config.locate
    mean = _mean(lens, others.flat)
    settings = [_SALIENCY_VERSION, studio.fingerprint, params.saliency_steps, params.saliency_draws, _digest(mean)]
    kept = FeatureCache(session.run.features / f"saliency-{digest_of(settings)[:32]}")
    keys = []
    with session.timed("saliency"), session.talk.progress("saliency", len(photos)) as advance:
        for photo in photos:
            features, face = lens.features([photo])[0], photo_face(session, lens, studio, photo)
            seeds = _seeds(session, params.saliency_draws, "saliency", photo.sha256)
            keys.append(digest_of([_digest(features), _digest(face), seeds]))
            if kept.missing(keys[-1:]):
                likeness = studio.likeness(face, seeds, params.saliency_steps)
                row = photo_saliency(features, mean, likeness, params.saliency_draws)
                kept.put(keys[-1:], torch.full((1, mean.shape[-1]), torch.nan) if row is None else row[None])
            advance(1, "")
    return [None if bool(row.isnan().any()) else row for row in kept.get(keys)]


def choose_pairs(session: Session, firsts: People, seconds: People, count: int) -> list[PhotoPair]:
    """Pair people of one group with people of the other, with as many different people as possible.

    Args:
        session: gives the seed.
        firsts: people who are A.
        seconds: people who are B, none of them among `firsts`.
        count: number of pairs.
    """
    columns = []
    for name, people in (("A", firsts), ("B", seconds)):
        rng = session.random("interchange", name)
        queue: list[Photo] = []
        while len(queue) < count:
            for position in torch.randperm(len(people.photos), generator=rng).tolist():
                person = people.photos[position]
                queue.append(person[int(torch.randint(len(person), (1,), generator=rng))])
        columns.append(queue[:count])
    return list(zip(*columns, strict=True))


def run_interchange(
    session: Session, lens: Lens, studio: Studio, pairs: Sequence[PhotoPair], masks: Sequence[Tensor]
) -> Interchanged:
    """Draw the interchanges of pairs of encoded photos.

    Args:
        session: the run.
        lens: the encoder, with the photos of all pairs encoded.
        studio: the generator with its judges.
        pairs: photos of A and B.
        masks: for each pair, bool (points, d).

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    seeds = _seeds(session, len(pairs), "interchange", "noise")

    def told() -> Iterator[Exchanged]:
        for (first, second), seed in zip(pairs, seeds, strict=True):
            features = lens.features([first, second])
            faces = [photo_face(session, lens, studio, photo) for photo in (first, second)]
            yield Exchanged(features[0], features[1], faces[0], faces[1], seed)
            advance(1, "")

    with session.timed("interchange"), session.talk.progress("interchange", len(pairs)) as advance:
        return measure(told(), masks, studio.draw)


def interchange_record(
    session: Session, lens: Lens, studio: Studio, mask: FeatureMask, targets: People, others: People
) -> Json:
    """Interchange the mask's features between targets (A) and retained people (B); compare with random masks.

    Args:
        session: the run; `locate.interchange_pairs` says how many pairs.
        lens: the encoder, with the targets encoded.
        studio: the generator with its judges.
        mask: the mask just made.
        targets: people who are A.
        others: people who are B; their photos are encoded here if they are needed.
    """
    pairs = choose_pairs(session, targets, others, session.config.locate.interchange_pairs)
    chosen = {second for _, second in pairs}
    usable = set(lens.encode(others.where(chosen.__contains__), "--retain", "photos to interchange with").flat)
    pairs = [pair for pair in pairs if pair[1] in usable]
    session.executor.leave()
    seed = session.config.seed
    done = run_interchange(session, lens, studio, pairs, [beside_random(mask.mask, seed, n) for n in range(len(pairs))])
    return {"generator": studio.generator.name, **record(done, mask.kept / len(mask.mask), seed)}


def photo_face(session: Session, lens: Lens, studio: Studio, photo: Photo) -> Tensor:
    """The recogniser's unit vector of an encoded photo.

    Raises:
        PhotoError: the photo changed since it was encoded.
    """
    return steady(photo, lambda one: studio.face(lens.reader.face(one)), session.name_of(photo))


def _mean(lens: Lens, photos: Sequence[Photo]) -> Tensor:
    pieces = (piece.double().sum(0) for _, piece in chunks(lens.cache, [photo.sha256 for photo in photos]))
    return (sum(pieces, torch.zeros((), dtype=torch.float64)) / len(photos)).float()


def _seeds(session: Session, count: int, *names: str) -> list[int]:
    rng = session.random(*names)
    return [int(seed) for seed in torch.randint(2**31, (count,), generator=rng)]


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.float().contiguous().numpy().data).hexdigest()
