"""Collect the features before and after the edit for verification."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ireu_cli.copies import without_copies
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens, flatten_tokens, photo_reader
from ireu_cli.encodings.loop import Batch, EncoderLook, Encodings, Fold
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.measuring.matching import Evidence, PersonEvidence
from ireu_cli.photos import Cast, among, load_retain, load_targets
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.made import Made, batched
from ireu_cli.support.runtime import generator
from ireu_cli.unlearning.gated.checks import PIECE, rows_by_person
from ireu_cli.values import Pair, People, Photo

T = TypeVar("T")
COMPARED_VERSION = 1
"""Raise it when the same photos give other rows, so that old and new rows are not mixed."""
_PIECE = 32
_ORIGIN = 1024
"""The most photos of retained people for the mean tokens from which changes are measured."""


@dataclass(frozen=True)
class Gathered:
    """Features before and after, and the people with usable photos, in the same order.

    `encodings`: the loop that their photos passed through. `copies`: number of photos of targets that were left out
    because they are copies of photos that unlearning used.
    """

    evidence: Evidence
    targets: People
    retained: People
    encoders: Pair[ImageEncoder]
    encodings: Encodings
    copies: int = 0


def load_people(session: Session, delta: Manifest) -> Cast:
    """The targets with all their photos, the retained people that unlearning used, and those that it never did."""
    targets = load_targets(session, limit=False)
    retain = load_retain(session, targets)
    used = among(session, delta.retain)
    fresh = {photo.sha256 for person in retain.photos if not any(map(used, person)) for photo in person}
    unused = retain.where(lambda photo: photo.sha256 in fresh)
    return Cast(targets, retain.where(lambda photo: photo.sha256 not in fresh), unused)


def gather(
    session: Session,
    delta: Manifest,
    encoders: Pair[ImageEncoder],
    people: Cast,
) -> Gathered:
    """Encode everybody with both encoders and compare, photo by photo."""
    reader = photo_reader(session.config)
    before, after = (Lens(session, encoder, reader) for encoder in encoders)
    targets = before.encode(people.targets, "--targets", "target photos, original")
    null, changed_null = before.null_features(), after.null_features()
    seen = _Tokens(before, after) if null.ndim == 3 else _Vectors(before, after)
    fresh, used = seen.encode(people.held, people.used)
    mean = seen.mean
    targets, copies, known = without_copies(session, delta, before, targets, mean)
    after.encode(targets, "--targets", "target photos, edited")
    was_used = among(session, delta.targets)

    def compared(person: tuple[Photo, ...]) -> PersonEvidence:
        pairs = ((before.features(part), after.features(part)) for part in batched(person, _PIECE))
        rows = torch.cat([_joined(compare_taps(*pair, mean)) for pair in pairs])
        return _person(rows, torch.tensor([was_used(photo) for photo in person]))

    found = Evidence(
        targets=[compared(person) for person in targets.photos],
        retained=seen.retained(fresh),
        reference=Kept(seen.reference, used, lambda rows: rows),
        null_relative=_relative(null, changed_null),
        known_used=known,
    )
    return Gathered(found, targets, fresh, encoders, before.encodings, copies)


class Kept(Made[tuple[Photo, ...], T]):
    """People's features, read from the run folder on every access, so that they take no memory."""

    def __init__(self, rows: Callable[[Sequence[str]], Tensor], people: People, make: Callable[[Tensor], T]) -> None:
        """Args: `rows` gives the rows of photos; `people` are in order; `make` turns a person's rows into an item."""
        super().__init__(people.photos, lambda person: make(rows([photo.sha256 for photo in person])))
        self._rows, self._people, self._read = rows, people, make

    def __iter__(self) -> Iterator[T]:
        """Iterate over everybody, reading some at a time."""
        return map(self._read, rows_by_person(self._rows, self._people, whole=True))


class _Vectors:
    """Retained people at a tap with one vector a photo: both encoders' features are kept."""

    def __init__(self, before: Lens, after: Lens) -> None:
        self._before, self._after = before, after
        self.mean: Tensor | float = 0.0

    def encode(self, fresh: People, used: People) -> tuple[People, People]:
        """Encode the photos; returns the people with usable photos."""
        fresh = self._before.encode(fresh, "--retain", "retained photos, original")
        used = self._before.encode(used, "--retain", "reference photos")
        self._after.encode(fresh, "--retain", "retained photos, edited")
        if photos := fresh.flat:
            sums = (self._before.features(part).double().sum(0) for part in batched(photos, PIECE))
            self.mean = (sum(sums, torch.zeros((), dtype=torch.float64)) / len(photos)).float()
        return fresh, used

    def retained(self, fresh: People) -> "Kept[PersonEvidence]":
        """Everybody, compared in both states."""

        def rows(keys: Sequence[str]) -> Tensor:
            original, edited = self._before.cache.get(keys), self._after.cache.get(keys)
            return _joined(compare_taps(original, edited, self.mean))

        return Kept(rows, fresh, _person)

    def reference(self, keys: Sequence[str]) -> Tensor:
        """Features of photos that are only used to fit the space."""
        return self._before.cache.get(keys)


class _Compared(EncoderLook):
    """What figures need of a photo at a tap of many tokens, before and after: rows as of `_joined`."""

    def __init__(self, before: Lens, after: Lens, mean: Tensor | float) -> None:
        super().__init__(before.encoder)
        self._looks = before.look, after.look
        self._mean = mean

    def see(self, pixels: Tensor) -> Tensor:
        """See `EncoderLook`."""
        original, edited = (look.see(pixels) for look in self._looks)
        return _joined(compare_taps(original, edited, self._mean))


class _Tokens:
    """Retained people at a tap of many tokens a photo.

    Figures only need the tokens' mean before and after, a cosine and two changes; the tokens themselves are hundreds of
    times as many values. So both encoders see a photo one after the other, and only these results are kept.
    """

    def __init__(self, before: Lens, after: Lens) -> None:
        self._before, self._after = before, after
        self._averages = self._compared = before.cache
        self.mean: Tensor | float = 0.0

    def encode(self, fresh: People, used: People) -> tuple[People, People]:
        """Encode the photos; returns the people with usable photos."""
        self.mean, name = self._origin(fresh.flat)
        decides = digest_of([COMPARED_VERSION, self._before.name, self._after.name, name])
        self._compared = FeatureCache(self._after.folder / f"compared-{decides[:32]}")
        label, look = "retained photos, before and after", _Compared(self._before, self._after, self.mean)
        bad = self._before.encode_items(self._before.items(fresh), "--retain", label, into=self._compared, look=look)
        fresh = fresh.where(lambda photo: photo.sha256 not in bad)
        used, self._averages = self._before.encode_averages(used, "--retain", "reference photos")
        return fresh, used

    def retained(self, fresh: People) -> "Kept[PersonEvidence]":
        """Everybody, compared in both states."""
        return Kept(self._compared.get, fresh, _person)

    def reference(self, keys: Sequence[str]) -> Tensor:
        """Features of photos that are only used to fit the space."""
        return self._averages.get(keys)

    def _origin(self, photos: Sequence[Photo]) -> tuple[Tensor, str]:
        """The mean of tokens over all photos, or over a sample of many, and a digest of everything that decides it."""
        rng = generator(0, "origin")
        chosen = [photos[i] for i in torch.randperm(len(photos), generator=rng)[:_ORIGIN].sort().values.tolist()]
        name = digest_of([photo.sha256 for photo in chosen])
        path = self._before.folder / "origins" / f"{name[:32]}.safetensors"
        if (kept := read_tensors(path)) is not None:
            return kept["mean"], name
        items, look = [self._before.item(photo) for photo in chosen], self._before.look
        whole = _Summed(look)
        fold = Fold[Tensor]([self._before.name, "origin"], lambda _first: _Summed(look), whole.join)
        self._before.encodings.gather(look, items, fold, "retained photos, their mean")
        mean = (whole.total / max(1, whole.count)).float()
        write_tensors(path, {"mean": mean})
        return mean, name


class _Summed:
    """The sum of what a look gives of photos, and their number."""

    def __init__(self, look: EncoderLook) -> None:
        self.total, self.count = torch.zeros((), dtype=torch.float64), 0
        self._look = look

    def add(self, batch: Batch[Tensor]) -> None:
        """See `Gathering`."""
        if batch.keys:
            self.total = self.total + self._look.see(torch.cat(batch.prepared)).double().sum(0)
            self.count += len(batch.keys)

    def tensors(self) -> dict[str, Tensor]:
        """See `Gathering`."""
        return {"total": self.total, "count": torch.tensor(self.count)}

    def join(self, tensors: dict[str, Tensor]) -> None:
        """Add what came of a shard."""
        self.total = self.total + tensors["total"]
        self.count += int(tensors["count"])


def compare_taps(
    original: Tensor, edited: Tensor, mean: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The values that figures need for some photos at a tap, before and after.

    Args:
        original: float32 (n, …, d).
        edited: the same for the edited encoder.
        mean: mean of retained people, (…, d).

    Returns:
        Features before and after as one vector a photo (n, d), and (n,) their cosine, relative and centred change over
        the whole tap.
    """
    cosine = torch.cosine_similarity(original.flatten(1), edited.flatten(1), dim=1)
    changes = _relative(original, edited), _relative(original, edited, mean)
    return flatten_tokens(original), flatten_tokens(edited), cosine, *changes


def _joined(parts: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """The result of `compare_taps` as rows (n, 2 d + 3)."""
    return torch.cat([*parts[:2], *(column[:, None] for column in parts[2:])], 1)


def _person(rows: Tensor, seen: Tensor | None = None) -> PersonEvidence:
    """A person made from `_joined` rows; `seen`, bool (n,), marks the photos that unlearning used."""
    width = (rows.shape[1] - 3) // 2
    original, edited, rest = rows[:, :width], rows[:, width : 2 * width], rows[:, 2 * width :]
    known = torch.zeros(len(rows), dtype=torch.bool) if seen is None else seen
    return PersonEvidence(original, edited, rest[:, 0], rest[:, 1], rest[:, 2], known)


def _relative(original: Tensor, edited: Tensor, origin: Tensor | float = 0.0) -> Tensor:
    change: Tensor = torch.linalg.vector_norm((edited - original).flatten(1), dim=1)
    size: Tensor = torch.linalg.vector_norm((original - origin).flatten(1), dim=1)
    # A network without biases gives zeros for a blank picture; no difference then means no change.
    return torch.where(change == 0, change, change / size)
