"""Read one photo as the settings say: unchanged, or detected, cropped and aligned."""

import hashlib
import threading
from collections.abc import Callable

from ireu_cli.faces.align import Points, crop_face, template_points
from ireu_cli.faces.decode import BadPhotoError, decode
from ireu_cli.faces.photo_files import most_bytes, read_photo
from ireu_cli.faces.swap import Face
from ireu_cli.params import ARCFACE_LANDMARKS, DataParams
from ireu_cli.values import Photo, RgbImage

READING_VERSION = 2
"""Raise it when the same bytes give other pixels, so that cached features are not mixed."""


RECENT_BYTES = 256 * 2**20
"""The most pixels of photos that are remembered: thirty photos of two megapixels, or one or two of the largest.
"""


class _Recent:
    """The photos that were read last, as many as fit; several threads may use it."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._faces: dict[Photo, Face] = {}
        self._lock = threading.Lock()

    def get(self, photo: Photo, read: Callable[[Photo], Face]) -> Face:
        with self._lock:
            known = self._faces.pop(photo, None)
            if known is not None:
                self._faces[photo] = known
                return known
        face = read(photo)
        with self._lock:
            if photo not in self._faces:
                self._faces[photo] = face
                self._held += face.image.nbytes
            while self._held > self._most:
                self._held -= self._faces.pop(next(iter(self._faces))).image.nbytes
        return face


class PhotoReader:
    """Turns photos into the encoder's pictures."""

    def __init__(self, data: DataParams, find: Callable[[RgbImage], Points] | None) -> None:
        """Args: `data` says how to read; `find` gives a face's landmarks, None if photos are already aligned."""
        self._data = data
        self._find = find
        self._most = most_bytes(data.max_megapixels)
        self._recent = _Recent(RECENT_BYTES)

    @property
    def name(self) -> str:
        """The name of this way of reading; equal names give equal pixels for equal bytes."""
        if self._find is None:
            return f"aligned-{READING_VERSION}"
        settings = f"{self._data.face_pack} {self._data.crop_size} {self._data.crop_margin}"
        return f"detect-{READING_VERSION}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"

    @property
    def points_name(self) -> str:
        """The name of the source of landmarks; changed copies of a photo depend on it."""
        given = None if self._find else self._data.landmarks or ARCFACE_LANDMARKS
        return f"{self.name}-{hashlib.sha256(repr(given).encode()).hexdigest()[:12]}"

    def face(self, photo: Photo) -> Face:
        """Return picture and landmarks; the last few are remembered, because swapping asks for the same photos again.

        Raises:
            BadPhotoError: the photo cannot be used.
        """
        return self._recent.get(photo, self._read)

    def image(self, photo: Photo) -> RgbImage:
        """Return only the picture; see `face`."""
        return self._read(photo).image

    def _read(self, photo: Photo) -> Face:
        data = read_photo(photo.path, self._most)
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            raise BadPhotoError("changed during the run")
        image = decode(data, self._data.max_megapixels)
        if self._find is None:
            return Face(image, template_points(self._data.landmarks or ARCFACE_LANDMARKS, image))
        return Face(*crop_face(image, self._find(image), self._data.crop_size, self._data.crop_margin))
