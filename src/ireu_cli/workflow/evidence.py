"""Features before and after, gathered for verification."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.faces.folder import People
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.models.encoders import ImageEncoder
from ireu_cli.steps.figures import Evidence, PersonEvidence
from ireu_cli.values import Photo
from ireu_cli.workflow.copies import without_copies
from ireu_cli.workflow.photos import Lens, among, flatten_tokens, load_retain, load_targets
from ireu_cli.workflow.session import Session

_PIECE = 32


@dataclass(frozen=True)
class Gathered:
    """Features before and after, with the people they are of, in the same order: those whose photos could be used.

    `copies`: how many photos of targets were left out, as copies of photos that unlearning used.
    """

    evidence: Evidence
    targets: People
    retained: People
    copies: int = 0


def load_people(session: Session, delta: Manifest) -> tuple[People, People, People]:
    """Return the targets with all their photos, the retained people unlearning never used, and those it did use."""
    targets = load_targets(session, limit=False)
    retain = load_retain(session, targets)
    used = among(session, delta.retain)
    fresh = {photo for person in retain.photos if not any(map(used, person)) for photo in person}
    return targets, retain.where(fresh.__contains__), retain.where(lambda photo: photo not in fresh)


def gather(
    session: Session,
    delta: Manifest,
    original: ImageEncoder,
    edited: ImageEncoder,
    people: tuple[People, People, People],
    reader: PhotoReader,
) -> Gathered:
    """Encode everybody with both encoders and compare, photo by photo."""
    targets, fresh, used = people
    before, after = Lens(session, original, reader), Lens(session, edited, reader)
    targets = before.encode(targets, "--targets", "target photos, original")
    fresh = before.encode(fresh, "--retain", "retained photos, original")
    used = before.encode(used, "--retain", "reference photos")
    mean = _mean(before, fresh.flat)
    targets, copies = without_copies(session, delta, before, targets, mean)
    after.encode(targets, "--targets", "target photos, edited")
    after.encode(fresh, "--retain", "retained photos, edited")
    seen = among(session, delta.targets)

    def compared(person: tuple[Photo, ...]) -> PersonEvidence:
        known = torch.tensor([seen(photo) for photo in person])
        return _compare(before, after, person, known, mean)

    found = Evidence(
        targets=[compared(person) for person in targets.photos],
        retained=[compared(person) for person in fresh.photos],
        reference=[flatten_tokens(before.features(person)) for person in used.photos],
        null_relative=_relative(before.null_features(), after.null_features()),
    )
    return Gathered(found, targets, fresh, copies)


def _compare(
    before: Lens, after: Lens, photos: tuple[Photo, ...], seen: Tensor, mean: Tensor | float
) -> PersonEvidence:
    parts = []
    for start in range(0, len(photos), _PIECE):
        piece = photos[start : start + _PIECE]
        original, edited = before.features(piece), after.features(piece)
        cosine = torch.cosine_similarity(original.flatten(1), edited.flatten(1), dim=1)
        relative, centred = _relative(original, edited), _relative(original, edited, mean)
        parts.append((flatten_tokens(original), flatten_tokens(edited), cosine, relative, centred))
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    return PersonEvidence(joined[0], joined[1], joined[2], joined[3], joined[4], seen)


def _mean(lens: Lens, photos: list[Photo]) -> Tensor | float:
    """The mean of the photos' features (…, d), in pieces; 0 without photos."""
    total: Tensor | float = 0.0
    for start in range(0, len(photos), _PIECE):
        total = total + lens.features(photos[start : start + _PIECE]).sum(0)
    return total / max(1, len(photos))


def _relative(original: Tensor, edited: Tensor, origin: Tensor | float = 0.0) -> Tensor:
    change: Tensor = torch.linalg.vector_norm((edited - original).flatten(1), dim=1)
    size: Tensor = torch.linalg.vector_norm((original - origin).flatten(1), dim=1)
    # A network without biases gives zeros for a blank picture, and what does not change has not changed.
    return torch.where(change == 0, change, change / size)
