"""Choose the swapped faces for each target photo, with keys so that none is made twice."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.loop import Item
from ireu_cli.errors import ConfigError, PhotoError
from ireu_cli.faces.decode import BadPhotoError, decode
from ireu_cli.faces.listing import list_folder
from ireu_cli.faces.photo_files import digest_photo, most_bytes, read_photo
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import FaceSwap, blend
from ireu_cli.params import Config
from ireu_cli.session import Session
from ireu_cli.store.files import file_sha256
from ireu_cli.values import People, Photo, RgbImage

SWAP_VERSION = 2
"""Raise it when `blend` makes other pixels from the same photos, so that cached features are not mixed."""


@dataclass(frozen=True, slots=True)
class SwappedPhoto(Item):
    """A target's photo with a partner's face in it."""

    photo: Photo
    partner: Photo
    swap: FaceSwap

    def load(self, reader: PhotoReader, /) -> RgbImage:
        """See `Item`."""
        return self.swap(reader.face(self.photo), reader.face(self.partner))


@dataclass(frozen=True, slots=True)
class BroughtPair(Item):
    """A swapped photo that somebody made beforehand."""

    path: Path
    max_megapixels: float

    def load(self, _reader: PhotoReader, /) -> RgbImage:
        """See `Item`; it is taken as it is, whatever the reader does with photos."""
        return decode(read_photo(self.path, most_bytes(self.max_megapixels)), self.max_megapixels)


@dataclass(frozen=True)
class SwapPlan:
    """For each target photo, its swapped versions; all photos have the same number."""

    photos: tuple[Photo, ...]
    items: tuple[tuple[Item, ...], ...]

    def encode(self, lens: Lens) -> "SwapPlan":
        """Encode all swapped versions; photos with an unusable version are left out."""
        bad = lens.encode_items([item for row in self.items for item in row], "--targets", "swapped faces")
        rows = [
            (photo, row)
            for photo, row in zip(self.photos, self.items, strict=True)
            if not any(i.key in bad for i in row)
        ]
        if not rows:
            raise PhotoError(
                "No target photo has usable swapped versions", "Replace the photos, or use another swapper"
            )
        return SwapPlan(tuple(photo for photo, _ in rows), tuple(row for _, row in rows))

    def pairs(self, lens: Lens) -> Iterator[tuple[Tensor, Tensor]]:
        """For each photo, its features (…, d) and those of its swapped versions (partners, …, d)."""
        for photo, row in zip(self.photos, self.items, strict=True):
            yield lens.features([photo])[0], lens.cache.get([item.key for item in row])

    def shifts(self, lens: Lens, *, average: bool) -> Tensor:
        """Δz of each photo, averaged over its partners, or of the first partner only: float32 (n, …, d)."""
        return torch.stack(
            [original - (swapped.mean(0) if average else swapped[0]) for original, swapped in self.pairs(lens)]
        )


def plan_swaps(session: Session, lens: Lens, targets: People, others: People) -> SwapPlan:
    """Choose the partners and name the swapped versions.

    Raises:
        ConfigError: the swapper lacks what it needs.
        PhotoError: no partner can be used, or a photo has no pair.
    """
    config = session.config
    if config.locate.swapper == "pairs":
        return _brought_pairs(config, targets)
    swap, name = _swapper(config)
    partners = _partners(session, lens, others)
    rows = tuple(
        tuple(_swapped(swap, name, photo, n, partner) for n, partner in enumerate(partners)) for photo in targets.flat
    )
    return SwapPlan(tuple(targets.flat), rows)


def _swapper(config: Config) -> tuple[FaceSwap, str]:
    if config.locate.swapper == "blend":
        place = (
            hashlib.sha256(repr(config.data.landmarks).encode()).hexdigest()[:16]
            if config.data.faces == "aligned"
            else ""
        )
        return blend, f"blend-{SWAP_VERSION}-{place}"
    from ireu_cli.faces.insight import Inswapper

    model = config.locate.swapper_model
    if model is None:
        raise ConfigError(
            "The insightface swapper needs its model",
            "Name the inswapper .onnx file with --set locate.swapper_model=FILE",
        )
    return Inswapper(model, config.data.face_models, config.data.face_pack), f"inswapper-{file_sha256(model)}"


def _partners(session: Session, lens: Lens, others: People) -> list[Photo]:
    """Return one photo of each person, in seeded order; take further photos of the same people only if needed."""
    rng = session.random("partners")
    order = torch.randperm(len(others.photos), generator=rng).tolist()
    deepest = max((len(person) for person in others.photos), default=0)
    queue = [others.photos[i][depth] for depth in range(deepest) for i in order if depth < len(others.photos[i])]
    partners: list[Photo] = []
    for photo in queue:
        if len(partners) == session.config.locate.partners:
            break
        try:
            lens.reader.face(photo)
            partners.append(photo)
        except BadPhotoError as error:
            if session.config.data.bad_photos == "error":
                raise PhotoError(
                    f"--retain: {session.name_of(photo)} {error}",
                    "Replace or remove the file, or go on without it with --bad-photos skip",
                ) from None
    if not partners:
        raise PhotoError("There is no photo of another person to swap faces with", "Add people to the --retain folder")
    if len(partners) < session.config.locate.partners:
        session.talk.note(f"retain: only {len(partners)} swap partners")
    return partners


def _swapped(swap: FaceSwap, name: str, photo: Photo, number: int, partner: Photo) -> Item:
    key = hashlib.sha256(f"{name}/{photo.sha256}/{partner.sha256}".encode()).hexdigest()
    return SwappedPhoto(key, f"{photo.label} with the face of partner {number + 1}", photo, partner, swap)


def _brought_pairs(config: Config, targets: People) -> SwapPlan:
    root = config.locate.pairs
    if root is None or not root.is_dir():
        raise ConfigError("The swapper `pairs` needs a folder of swapped photos", "Name it with --set locate.pairs=DIR")
    found = {photo: _pair_files(root, config, photo) for photo in targets.flat}
    lacking = [photo for photo, files in found.items() if not files]
    if lacking:
        raise PhotoError(
            f"{lacking[0].label} has no swapped version ({len(lacking)} such photos)",
            "Put them into DIR/<person>/<photo name without ending>/",
        )
    count = min(len(files) for files in found.values())
    rows = tuple(
        tuple(_brought(config, photo, n, path) for n, path in enumerate(files[:count]))
        for photo, files in found.items()
    )
    return SwapPlan(tuple(found), rows)


def _pair_files(root: Path, config: Config, photo: Photo) -> list[Path]:
    if config.data.targets is None:
        raise RuntimeError("photos of targets were read without their folder")
    folder = root / photo.path.relative_to(config.data.targets).with_suffix("")
    return [Path(file) for file in list_folder(folder).photos] if folder.is_dir() else []


def _brought(config: Config, photo: Photo, number: int, path: Path) -> Item:
    label = f"pair {number + 1} of {photo.label}"
    try:
        digest = digest_photo(path, most_bytes(config.data.max_megapixels))
    except BadPhotoError as error:
        raise PhotoError(f"{label} {error}", "Replace the file, or remove it") from None

    return BroughtPair(f"pair-{digest}", label, path, config.data.max_megapixels)
