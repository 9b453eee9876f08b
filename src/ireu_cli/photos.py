"""From folders to encoded photos: who takes part, how photos are read, what is in the cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings import Item, encode, refuse_bad
from ireu_cli.errors import ArtifactError, ConfigError, PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.folder import People, choose_photos, scan_people, split_people
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import PersonRecord, digest_of, photos_of
from ireu_cli.params import Config, Tap
from ireu_cli.session import Session
from ireu_cli.store.digests import DigestBook
from ireu_cli.store.features import FeatureCache
from ireu_cli.support.made import Made
from ireu_cli.support.runtime import generator
from ireu_cli.values import FeatureMask, Photo

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Cast:
    """Who takes part: targets, retained people that unlearning may use, and those held out from it."""

    targets: People
    used: People
    held: People


def load_targets(session: Session, *, limit: bool) -> People:
    """Scan the target folder; with `limit`, keep at most `data.max_photos` a person.

    Raises:
        ConfigError: no folder is given.
        PhotoError: the folder cannot be used.
    """
    data = session.config.data
    if data.targets is None:
        raise ConfigError(
            "No target photos are given, or they are not where they were; of a delta made of several requests they are "
            "always to be named",
            "Name their folder with --targets DIR",
        )
    targets = _scan(session, data.targets, "targets", "one person")
    return choose_photos(targets, data.max_photos if limit else None, generator(session.config.seed, "max-photos"))


def load_retain(session: Session, targets: People) -> People:
    """Scan the retain folder; a photo that is a target's too does not count as retained.

    Raises:
        ConfigError: no folder is given.
        PhotoError: the folder cannot be used.
    """
    if session.config.data.retain is None:
        raise ConfigError(
            "No photos of other people are given, or they are not where they were",
            "Name a folder of them with --retain DIR",
        )
    retain = _scan(session, session.config.data.retain, "retain", "everybody")
    theirs = {photo.sha256 for photo in targets.flat}
    left = retain.where(lambda photo: photo.sha256 not in theirs)
    if dropped := len(retain.flat) - len(left.flat):
        session.talk.note(f"retain: {dropped} photos are targets' photos too, and do not count as retained")
    return left


def load_cast(session: Session) -> Cast:
    """Scan both folders and split the retained people by `data.retain_holdout`."""
    every = load_targets(session, limit=False)
    targets = choose_photos(every, session.config.data.max_photos, generator(session.config.seed, "max-photos"))
    retain = load_retain(session, every)
    used, held = split_people(retain, session.config.data.retain_holdout, generator(session.config.seed, "holdout"))
    if not used.photos:
        raise PhotoError(
            "No retained people are left to work with",
            "Add people to the --retain folder, or lower data.retain_holdout",
        )
    return Cast(targets, used, held)


def _scan(session: Session, folder: Path, what: str, flat_means: Literal["one person", "everybody"]) -> People:
    """List a folder and say what is in it; what cannot be read is refused or left out, as `data.bad_photos` says."""
    flag, data, verbose = f"--{what}", session.config.data, session.talk.verbose
    # Files that nobody touched since an earlier step are not read again.
    book = DigestBook(lambda: session.run.digests(folder), is_new=not session.run.is_made)
    people = scan_people(
        folder, flag, flat_means, book.digest, data=data, verbose=verbose,
        progress=lambda total: session.talk.progress(f"reading {what} photos", total),
    )  # fmt: skip
    book.keep()
    _tell(session, what, people)
    labels = {str(one.path): f"{one.label} ({one.path})" if verbose else one.label for one in people.unread}
    _refuse_or_note(session, {str(one.path): one.reason for one in people.unread}, labels, flag, what)
    lost = {one.person for one in people.unread} - {photo.person for photo in people.flat}
    if lost and what == "targets":
        raise no_usable_photo()
    if not people.photos:
        raise PhotoError(f"The folder given by {flag} holds no photo that can be used", "Replace the unusable photos")
    return people


def _refuse_or_note(session: Session, bad: dict[str, str], labels: dict[str, str], flag: str, what: str) -> None:
    if session.config.data.bad_photos == "error":
        refuse_bad(bad, labels, flag)
    elif bad:
        reasons = "; ".join(sorted(set(bad.values())))
        session.talk.note(f"{what}: {len(bad)} unusable photos skipped ({reasons})")
        if session.talk.verbose:
            for key, reason in bad.items():
                session.talk.note(f"{what}: {labels[key]} {reason}")


def photo_reader(config: Config) -> PhotoReader:
    """The way of reading that the configuration asks for."""
    if config.data.faces == "aligned":
        return PhotoReader(config.data, None)
    from ireu_cli.faces.insight import FaceFinder

    return PhotoReader(config.data, FaceFinder(config.data.face_models, config.data.face_pack).find)


class Lens:
    """An encoder at a tap: encodes photos once, and gives their features and pixels back."""

    def __init__(self, session: Session, encoder: ImageEncoder, reader: PhotoReader, tap: Tap | None = None) -> None:
        """Open the cache of exactly this encoder, tap (None: the configured one), preprocessing, dtype and reading."""
        self.encoder = encoder
        self.tap: Tap = tap or session.config.encoder.tap
        self.reader = reader
        self._session = session
        # The last digits of features depend on where and in what batches photos were encoded.
        how = f"{session.config.run.device.replace(':', '')}x{session.config.run.batch_size}"
        weights = encoder.fingerprint[:32] + ("" if encoder.settings is None else f"-{encoder.settings[:16]}")
        self.name = f"{weights}-{self.tap}-{encoder.preprocessing}-{encoder.dtype}-{reader.name}-{how}"
        self.folder = session.run.features / self.name
        """Where what is known at the tap is kept."""
        self.cache = FeatureCache(self.folder)

    def encode(self, people: People, flag: str, label: str) -> People:
        """Encode everybody's photos; returns the people whose photos can be used.

        Raises:
            PhotoError: a photo cannot be used and `data.bad_photos` is `error`, or somebody has none left.
        """
        bad = self.encode_items(self.items(people), flag, label)
        usable = people.where(lambda photo: photo.sha256 not in bad)
        if flag == "--targets" and len(usable.photos) < len(people.photos):
            raise no_usable_photo()
        return usable

    def encode_items(
        self,
        items: Sequence[Item],
        flag: str,
        label: str,
        *,
        into: FeatureCache | None = None,
        see: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, str]:
        """Encode pictures that may not be files of their own, such as swapped faces; returns the unusable ones.

        Args:
            items: the pictures.
            flag: the flag that named them, for messages.
            label: what they are, for messages.
            into: where rows are kept that `see` makes of pixels (n, 3, side, side); None: the tap's output, in its
                own cache.
            see: see there.
        """
        talk, size = self._session.talk, self._session.config.run.batch_size
        with self._session.timed("encode"), talk.progress(label, len(items)) as advance:
            bad = encode(self.encoder, self.tap, items, into or self.cache, size, lambda n: advance(n, ""), see)
        self.refuse_or_note(bad, items, flag, label)
        return bad

    def encode_averages(self, people: People, flag: str, label: str) -> tuple[People, FeatureCache]:
        """Encode one vector a photo, as people are compared by; of taps of many tokens their mean alone is kept.

        Returns:
            The people whose photos can be used, and where the vectors are.

        Raises:
            PhotoError: as `encode`.
        """
        if self.null_features().ndim < 3:
            return self.encode(people, flag, label), self.cache
        cache = FeatureCache(self.folder / "averages")
        bad = self.encode_items(
            self.items(people),
            flag,
            label,
            into=cache,
            see=lambda pixels: flatten_tokens(self.encoder.encode(pixels, self.tap)),
        )
        return people.where(lambda photo: photo.sha256 not in bad), cache

    def refuse_or_note(self, bad: dict[str, str], items: Sequence[Item], flag: str, label: str) -> None:
        """Refuse unusable items, or say that they are skipped, as `data.bad_photos` says.

        Raises:
            PhotoError: there are some and it is `error`.
        """
        if bad:
            labels = {item.key: item.label for item in items if item.key in bad}
            _refuse_or_note(self._session, bad, labels, flag, label)

    def features(self, photos: Sequence[Photo]) -> Tensor:
        """Features of encoded photos: float32 (n, …, d)."""
        return self.cache.get([photo.sha256 for photo in photos])

    def pixels(self, photos: Sequence[Photo]) -> Tensor:
        """Preprocessed pixels of photos: float32 (n, 3, side, side).

        Raises:
            PhotoError: a photo changed since it was encoded.
        """
        return self.encoder.pixels([steady(self._session, photo, self.reader.image) for photo in photos])

    def block_folder(self, block: int) -> Path:
        """Where what is known about a block of the encoder is kept; the tap plays no part in it."""
        return self._session.run.features / self.name.replace(f"-{self.tap}-", f"-mlp{block}-")

    def null_features(self) -> Tensor:
        """Features of the two null images: float32 (2, …, d)."""
        return self.encoder.encode(self.encoder.null_pixels(), self.tap)

    def items(self, people: People) -> Sequence[Item]:
        """Everybody's photos as something to encode, each made when somebody looks: there may be very many."""
        return Made(people.flat, self.item)

    def item(self, photo: Photo) -> Item:
        """A photo as something to encode."""
        return Item(photo.sha256, self._session.name_of(photo), lambda: self.reader.image(photo))


def steady(session: Session, photo: Photo, read: Callable[[Photo], Seen]) -> Seen:
    """What `read`, of a `PhotoReader`, gives of a photo that was read before.

    Raises:
        PhotoError: it changed since.
    """
    try:
        return read(photo)
    except (BadPhotoError, OSError) as error:
        why = str(error) if isinstance(error, BadPhotoError) else f"cannot be opened any more ({error.strerror})"
        raise PhotoError(
            f"{session.name_of(photo)} {why}", "Run the step again with photos that stay as they are"
        ) from None


def refuse_other_mask(mask: FeatureMask, width: int, tap: str) -> None:
    """Refuse a mask that is not for the tap, which has `width` features.

    Raises:
        ArtifactError: the mask has another number of features.
    """
    if width != len(mask.mask):
        raise ArtifactError(
            f"The mask has {len(mask.mask)} features, the tap {tap} has {width}",
            "Run `ireu locate` for this encoder and tap",
        )


def no_usable_photo() -> PhotoError:
    """What is wrong with a target of whom nothing can be encoded."""
    return PhotoError("A target has no photo that can be used", "Replace the unusable photos of that person")


def among(session: Session, people: Sequence[PersonRecord]) -> Callable[[Photo], bool]:
    """Says whether a photo is among those of a record."""
    digests = photos_of(people)
    return lambda photo: session.run.keyed_digest(photo.sha256) in digests


def photo_key(reader: PhotoReader, photo: Photo) -> str:
    """Names what a photo looks like when it is read this way."""
    return digest_of([reader.name, photo.sha256])


def batch_of(lens: Lens, photos: Sequence[Photo], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pixels and features of some of the photos, read when they are needed."""
    chosen = [photos[position] for position in positions]
    return lens.pixels(chosen), lens.features(chosen)


def _tell(session: Session, what: str, people: People) -> None:
    persons, photos = len(people.photos), len(people.flat)
    session.talk.note(
        f"{what}: {persons} {'person' if persons == 1 else 'people'}, {photos} photo{'' if photos == 1 else 's'}"
    )
    for note in people.notes:
        session.talk.note(f"{what}: {note}")


def flatten_tokens(features: Tensor) -> Tensor:
    """Features as one vector a photo for comparing people: token taps are averaged over tokens; (n, …, d) to (n, d)."""
    return features.mean(1) if features.ndim == 3 else features
