"""An encoder at a tap: photos become features, each encoded once and known again by its content."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.loop import EncoderLook, Encodings, Item
from ireu_cli.encodings.refusals import no_usable_photo, refuse_or_note
from ireu_cli.errors import ArtifactError, PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import digest_of
from ireu_cli.params import Config, Tap
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache
from ireu_cli.support.made import Made
from ireu_cli.values import FeatureMask, People, Photo, RgbImage

Seen = TypeVar("Seen")
_LONGEST_IN_NAMES = 40
"""The most characters of a tap in a folder's name, which file systems cut off at 255 bytes."""


def photo_reader(config: Config) -> PhotoReader:
    """The way of reading that the configuration asks for."""
    if config.data.faces == "aligned":
        return PhotoReader(config.data, None)
    from ireu_cli.faces.insight import FaceFinder

    return PhotoReader(config.data, FaceFinder(config.data.face_models, config.data.face_pack).find)


@dataclass(frozen=True, slots=True)
class PlainPhoto(Item):
    """A photo as the reader gives it."""

    photo: Photo

    def load(self, reader: PhotoReader, /) -> RgbImage:
        """See `Item`."""
        return reader.image(self.photo)


class AtTap(EncoderLook):
    """What an encoder gives at a tap: float32 (n, …, d)."""

    def __init__(self, encoder: ImageEncoder, tap: Tap) -> None:
        """Args: the encoder, and its tap."""
        super().__init__(encoder)
        self.tap: Tap = tap

    def see(self, pixels: Tensor) -> Tensor:
        """See `EncoderLook`."""
        return self.encoder.encode(pixels, self.tap)


class AveragedAtTap(AtTap):
    """The mean over tokens of what an encoder gives at a tap: float32 (n, d)."""

    def see(self, pixels: Tensor) -> Tensor:
        """See `EncoderLook`."""
        return flatten_tokens(super().see(pixels))


class Lens:
    """An encoder at a tap: it encodes each photo once and returns features and pixels."""

    def __init__(self, session: Session, encoder: ImageEncoder, reader: PhotoReader, tap: Tap | None = None) -> None:
        """Open the cache for exactly this encoder, tap (None: the configured one), preprocessing, dtype and reading."""
        self.encoder = encoder
        self.tap: Tap = tap or session.config.encoder.tap
        self.reader = reader
        self.encodings = Encodings(session, reader)
        self.look = AtTap(encoder, self.tap)
        self._session = session
        # The last digits of features depend on where and in what batches photos were encoded.
        how = f"{session.config.run.device.replace(':', '')}x{session.config.run.batch_size}"
        weights = encoder.fingerprint[:32] + ("" if encoder.settings is None else f"-{encoder.settings[:16]}")
        rest = f"{encoder.preprocessing}-{encoder.dtype}-{reader.name}-{how}"
        self.name = f"{weights}-{_short(self.tap)}-{rest}"
        self._around = (weights, rest)
        self.folder = session.run.features / self.name
        """The folder that keeps results for this tap."""

    @cached_property
    def cache(self) -> FeatureCache:
        """The rows that are kept of this tap; not every method reads them."""
        return FeatureCache(self.folder)

    def encode(self, people: People, flag: str, label: str) -> People:
        """Encode everybody's photos; returns people with usable photos.

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
        look: EncoderLook | None = None,
    ) -> dict[str, str]:
        """Encode pictures that may not be files of their own, such as swapped faces; returns the unusable ones.

        Args:
            items: the pictures.
            flag: the flag that named them, for messages.
            label: what they are, for messages.
            into: where rows are kept of another look; None: the tap's output, in its own cache.
            look: see there.
        """
        bad = self.encodings.fill(look or self.look, items, [into or self.cache], label)
        self.refuse_or_note(bad, items, flag, label)
        return bad

    def encode_averages(self, people: People, flag: str, label: str) -> tuple[People, FeatureCache]:
        """Encode one vector a photo, for comparing people; for taps of many tokens only their mean is kept.

        Returns:
            The people with usable photos, and the cache of the vectors.

        Raises:
            PhotoError: as `encode`.
        """
        if self.null_features().ndim < 3:
            return self.encode(people, flag, label), self.cache
        cache = FeatureCache(self.folder / "averages")
        look = AveragedAtTap(self.encoder, self.tap)
        bad = self.encode_items(self.items(people), flag, label, into=cache, look=look)
        return people.where(lambda photo: photo.sha256 not in bad), cache

    def readable(self, photos: Sequence[Photo], most: int, flag: str, label: str) -> list[Photo]:
        """The first readable photos up to a number, in the order of their people; no other photo is opened.

        Raises:
            PhotoError: one cannot be used and `data.bad_photos` is `error`.
        """
        found: list[Photo] = []
        bad: dict[str, str] = {}
        tried: list[Item] = []
        total = min(most, len(photos))
        with self._session.timed("encode"), self._session.talk.progress(label, total) as advance:
            for photo in photos:
                if len(found) == most:
                    break
                item = self.item(photo)
                tried.append(item)
                try:
                    item.load(self.reader)
                except BadPhotoError as error:
                    bad[item.key] = str(error)
                    continue
                found.append(photo)
                advance(1, "")
        self.refuse_or_note(bad, tried, flag, label)
        return sorted(found, key=lambda photo: (photo.person, photo.index))

    def refuse_or_note(self, bad: dict[str, str], items: Sequence[Item], flag: str, label: str) -> None:
        """Refuse unusable items, or report that they are skipped; `data.bad_photos` decides.

        Raises:
            PhotoError: there are some, and the setting is `error`.
        """
        if bad:
            labels = {item.key: item.label for item in items if item.key in bad}
            refuse_or_note(self._session, bad, labels, flag, label)

    def features(self, photos: Sequence[Photo]) -> Tensor:
        """Features of encoded photos: float32 (n, …, d)."""
        return self.cache.get([photo.sha256 for photo in photos])

    def pixels(self, photos: Sequence[Photo]) -> Tensor:
        """Preprocessed pixels of photos: float32 (n, 3, side, side).

        Raises:
            PhotoError: a photo changed since it was encoded.
        """
        return self.encoder.pixels([steady(photo, self.reader.image, self._session.name_of(photo)) for photo in photos])

    def block_folder(self, block: int, what: str = "mlp") -> Path:
        """The folder that keeps results about a block of the encoder, which do not depend on the tap.

        Args:
            block: the block's number.
            what: `mlp`, or what else is kept of the block.
        """
        weights, rest = self._around
        return self._session.run.features / f"{weights}-{what}{block}-{rest}"

    def null_features(self) -> Tensor:
        """Features of the two null images: float32 (2, …, d)."""
        return self.encoder.encode(self.encoder.null_pixels(), self.tap)

    def items(self, people: People) -> Sequence[Item]:
        """Everybody's photos as a lazy sequence of items to encode: there may be very many."""
        return Made(people.flat, self.item)

    def item(self, photo: Photo) -> Item:
        """A photo as an item to encode."""
        return PlainPhoto(photo.sha256, self._session.name_of(photo), photo)


def _short(tap: Tap) -> str:
    """A tap in the name of a folder: itself, or a digest if it is longer than taps that have a name of their own."""
    return tap if len(tap) <= _LONGEST_IN_NAMES else f"taps-{digest_of(tap)[:32]}"


@dataclass(frozen=True, slots=True)
class SteadyPhoto(PlainPhoto):
    """A photo that was read before, so that it is an error where it cannot be read again."""

    def load(self, reader: PhotoReader, /) -> RgbImage:
        """See `Item` and `steady`."""
        return steady(self.photo, reader.image, self.label)


def steady(photo: Photo, read: Callable[[Photo], Seen], name: str) -> Seen:
    """What `read`, of a `PhotoReader`, gives of a photo that was read before.

    Args:
        photo: the photo.
        read: reads it.
        name: what messages call it.

    Raises:
        PhotoError: it changed since.
    """
    try:
        return read(photo)
    except (BadPhotoError, OSError) as error:
        why = str(error) if isinstance(error, BadPhotoError) else f"cannot be opened any more ({error.strerror})"
        raise PhotoError(f"{name} {why}", "Run the step again, and do not change photos while it runs") from None


def refuse_other_mask(mask: FeatureMask, width: int, tap: str) -> None:
    """Refuse a mask that does not fit the tap, which has `width` features.

    Raises:
        ArtifactError: the mask has another number of features.
    """
    if width != len(mask.mask):
        raise ArtifactError(
            f"The mask has {len(mask.mask)} features, and the tap {tap} has {width}",
            "Run `ireu locate` for this encoder and tap",
        )


def photo_key(reader: PhotoReader, photo: Photo) -> str:
    """The key of a photo's content when it is read this way."""
    return digest_of([reader.name, photo.sha256])


def batch_of(lens: Lens, photos: Sequence[Photo], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pixels and features of some photos, read when they are needed."""
    chosen = [photos[position] for position in positions]
    return lens.pixels(chosen), lens.features(chosen)


def flatten_tokens(features: Tensor) -> Tensor:
    """Features as one vector a photo for comparing people: token taps are averaged over tokens; (n, …, d) to (n, d)."""
    return features.mean(1) if features.ndim == 3 else features
