"""Find copies of the photos that unlearning used, so that they do not count as photos that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encodings.lens import Lens, flatten_tokens
from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.likeness import (
    FEATURES_NEAR,
    LIKENESS_VERSION,
    NEAR,
    SAME,
    SMALL,
    Grey,
    likeness,
    marks,
    small_picture,
)
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest, PersonRecord
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import People, Photo

_STRANGERS = 1000
"""The most used photos to compare a person's photos with, if the folder holds none of that person's used photos."""


@dataclass(frozen=True)
class _Used:
    """A photo that unlearning used: its key in the caches, and a small picture of it."""

    key: str
    small: Grey


def keep_pictures(session: Session, reader: PhotoReader, photos: Sequence[Photo]) -> FeatureCache:
    """Keep small pictures of photos in the run folder; photos that cannot be read are skipped.

    They identify copies later, when the photos themselves may have been deleted. For a photo without a picture, that
    fact is kept.
    """
    cache = FeatureCache(session.run.features / f"small-{LIKENESS_VERSION}-{reader.name}")
    by_key = {photo.sha256: photo for photo in photos}
    found, bad = {}, []
    for key in cache.missing(list(by_key)):
        try:
            found[key] = torch.from_numpy(small_picture(reader.image(by_key[key]))).flatten()
        except BadPhotoError:
            bad.append(key)
        except OSError:
            continue
    if found:
        cache.put(list(found), torch.stack(list(found.values())))
    unusable = _unusable(session, reader)
    if bad := unusable.missing(bad):
        unusable.put(bad, torch.zeros(len(bad), 1))
    return cache


def _unusable(session: Session, reader: PhotoReader) -> FeatureCache:
    """The cache whose keys are those of photos without a picture."""
    return FeatureCache(session.run.features / f"unusable-{LIKENESS_VERSION}-{reader.name}")


def without_copies(
    session: Session, delta: Manifest, lens: Lens, targets: People, mean: Tensor | float
) -> tuple[People, int, float]:
    """Leave out photos of the targets that are copies of photos that unlearning used.

    Each photo is compared with all used photos of its person, and with other used photos that share a mark with it.

    Args:
        session: the run.
        delta: the record of unlearning.
        lens: the original encoder, which has encoded the targets.
        targets: the targets' photos.
        mean: average features of other people, (…, d).

    Returns:
        The targets without the copies, the number of copies left out, and the share (0 to 1) of these people's used
        photos of which a small picture is known. Copies of the other used photos cannot be found.

    Raises:
        PhotoError: a target has no other photos.
    """
    cache = keep_pictures(session, lens.reader, targets.flat)
    places = {session.run.keyed_digest(key): key for key in cache}
    used = {digest: _Used(key, _small(cache, key)) for digest, key in _used(delta.targets, places).items()}
    known = {*used, *(session.run.keyed_digest(key) for key in _unusable(session, lens.reader))}
    wanted = _wanted(session, delta.targets, targets)
    table: dict[tuple[int, int], list[_Used]] = {}
    for one in used.values():
        for mark in marks(one.small):
            table.setdefault(mark, []).append(one)
    copies: set[Photo] = set()
    for person in targets.photos:
        fresh = [p for p in person if session.run.keyed_digest(p.sha256) not in used and p.sha256 in cache]
        own = _own(session, delta.targets, person, used)
        copies |= _copies(lens, mean, cache, fresh, own)
        for photo in fresh:
            small = _small(cache, photo.sha256)
            own_marks = marks(small) | marks(small, mirrored=True)
            shared = {one.key: one for mark in own_marks for one in table.get(mark, ())}
            copies |= _copies(lens, mean, cache, [photo], list(shared.values()))
    if copies:
        session.talk.note(
            f"targets: {len(copies)} photos are left out, because they are copies of photos that unlearning used, "
            "saved again or changed a little; they cannot count as photos that it never saw"
        )
    left = targets.where(lambda photo: photo not in copies)
    if len(left.photos) < len(targets.photos):
        raise PhotoError(
            "Every photo of a target is a copy of one that unlearning used, and the photos that it used are missing",
            "Add the photos that were used, and other photos of that person",
        )
    return left, len(copies), len(wanted & known) / len(wanted) if wanted else 1.0


def _wanted(session: Session, records: Sequence[PersonRecord], targets: People) -> set[str]:
    """The used photos of these people; of all people if a person cannot be identified by any photo."""
    found: set[str] = set()
    for person in targets.photos:
        here = {session.run.keyed_digest(photo.sha256) for photo in person}
        theirs = [record.photos for record in records if not here.isdisjoint(record.photos)]
        found.update(*(theirs or [record.photos for record in records]))
    return found


def _used(people: Sequence[PersonRecord], places: dict[str, str]) -> dict[str, str]:
    return {digest: places[digest] for person in people for digest in person.photos if digest in places}


def _own(
    session: Session, records: Sequence[PersonRecord], person: Sequence[Photo], used: dict[str, _Used]
) -> list[_Used]:
    """The used photos of this person; all used photos if the folder holds none of this person's."""
    here = {session.run.keyed_digest(photo.sha256) for photo in person}
    theirs = [record for record in records if not here.isdisjoint(record.photos)]
    if not theirs and len(used) <= _STRANGERS:
        theirs = list(records)
    return [used[digest] for record in theirs for digest in record.photos if digest in used]


def _copies(
    lens: Lens, mean: Tensor | float, cache: FeatureCache, photos: Sequence[Photo], used: Sequence[_Used]
) -> set[Photo]:
    if not photos or not used:
        return set()
    alike = likeness([_small(cache, photo.sha256) for photo in photos], [one.small for one in used])
    is_copy = alike >= SAME
    for row, column in zip(*np.nonzero((alike >= NEAR) & ~is_copy), strict=True):
        is_copy[row, column] = _seen_alike(lens, mean, photos[row].sha256, used[column].key)
    return {photo for photo, row in zip(photos, is_copy, strict=True) if row.any()}


def _seen_alike(lens: Lens, mean: Tensor | float, first: str, second: str) -> bool:
    """Whether the original encoder sees the same in two photos; False if it did not encode one of them."""
    if first not in lens.cache or second not in lens.cache:
        return False
    centred = flatten_tokens(lens.cache.get([first, second]) - mean)
    return float(torch.cosine_similarity(centred[:1], centred[1:])) >= FEATURES_NEAR


def _small(cache: FeatureCache, key: str) -> Grey:
    return np.asarray(cache.get([key])[0].reshape(SMALL, SMALL).numpy(), dtype=np.float32)
