"""Copies of the photos that unlearning used are no photos that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encodings.lens import Lens, flatten_tokens
from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.folder import People
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
from ireu_cli.values import Photo

_STRANGERS = 1000
"""Used photos that those of a person are compared with, of whom the folder holds no used one."""


@dataclass(frozen=True)
class _Used:
    """A photo that unlearning used: its key in the caches, and how it looks."""

    key: str
    small: Grey


def keep_pictures(session: Session, reader: PhotoReader, photos: Sequence[Photo]) -> FeatureCache:
    """Keep small pictures of photos in the run folder; those that cannot be read are passed over.

    They tell copies of the photos later, when the photos themselves may have been deleted. Of a photo that holds no
    picture it is kept that it holds none.
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
    """Its keys are those of photos that hold no picture."""
    return FeatureCache(session.run.features / f"unusable-{LIKENESS_VERSION}-{reader.name}")


def without_copies(
    session: Session, delta: Manifest, lens: Lens, targets: People, mean: Tensor | float
) -> tuple[People, int, float]:
    """Leave out the targets' photos that are copies of photos that unlearning used.

    Each is compared with all used photos of its person, and with those of others that share a mark with it.

    Args:
        session: the run.
        delta: the record of unlearning.
        lens: the original encoder, which has encoded the targets.
        targets: their photos.
        mean: features of the average of other people, (…, d).

    Returns:
        The targets without the copies, how many were left out, and of how many of the photos that unlearning used of
        these people it is known how they look, 0 to 1: copies of the others cannot be told.

    Raises:
        PhotoError: of a target nothing else is there.
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
            f"targets: {len(copies)} photos are copies of photos that unlearning used, saved again or changed a "
            "little, and are left out: they say nothing of photos that it never saw"
        )
    left = targets.where(lambda photo: photo not in copies)
    if len(left.photos) < len(targets.photos):
        raise PhotoError(
            "Every photo of a target is a copy of one that unlearning used, and those are not there",
            "Add the photos that were used, and others of that person that were not",
        )
    return left, len(copies), len(wanted & known) / len(wanted) if wanted else 1.0


def _wanted(session: Session, records: Sequence[PersonRecord], targets: People) -> set[str]:
    """Photos that unlearning used of these people; of all, where somebody is among them whom no photo tells."""
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
    """Used photos of this person; where none of them is in the folder, who is who is not known, and all may be."""
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
    """Whether the original encoder sees the same in two photos; not known of one that it did not encode."""
    if first not in lens.cache or second not in lens.cache:
        return False
    centred = flatten_tokens(lens.cache.get([first, second]) - mean)
    return float(torch.cosine_similarity(centred[:1], centred[1:])) >= FEATURES_NEAR


def _small(cache: FeatureCache, key: str) -> Grey:
    return np.asarray(cache.get([key])[0].reshape(SMALL, SMALL).numpy(), dtype=np.float32)
