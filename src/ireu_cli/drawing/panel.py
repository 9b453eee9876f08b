"""The panel that judges a verification: a face check and several recognisers, looking at photos and pictures alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.drawing.embedded_judge import find_landmarks
from ireu_cli.faces.align import Points, crop_face
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.judges.face_check import FaceCheck
from ireu_cli.judges.judging import JudgingNet
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage

SIGHT_VERSION = 3
"""Raise it when the same picture gives another sight, so that kept rows are not mixed."""
_BATCH = 32


@dataclass(frozen=True)
class Sight:
    """What was seen in one picture: landmarks float64 (5, 2) in pixels, and each recogniser's unit vector (d,).

    Without a face, the landmarks are None and the vectors are NaN.
    """

    landmarks: Points | None
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Panel:
    """The judges, and what they saw before, kept in the run folder: landmarks first, then a cache a recogniser."""

    check: FaceCheck
    recognisers: tuple[JudgingNet, ...]
    fingerprint: str
    caches: tuple[FeatureCache, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the report calls the recognisers."""
        return tuple(net.name for net in self.recognisers)

    def look(
        self, items: Sequence[tuple[str, Callable[[], RgbImage]]], progress: Callable[[int], None]
    ) -> dict[str, Sight]:
        """Look at pictures, each given by a key that names its content and a way to load it.

        Returns:
            Sights by key; a photo that cannot be read is missing.
        """
        loads = dict(items)
        unknown = {key for cache in self.caches for key in cache.missing(list(loads))}
        missing = [key for key in loads if key in unknown]
        progress(len(loads) - len(missing))
        for start in range(0, len(missing), _BATCH):
            piece = missing[start : start + _BATCH]
            rows = {key: row for key in piece if (row := self._rows(loads[key])) is not None}
            for column, cache in enumerate(self.caches):
                if absent := cache.missing(list(rows)):
                    cache.put(absent, torch.stack([rows[key][column] for key in absent]))
            progress(len(piece))
        known = [key for key in loads if all(key in cache for cache in self.caches)]
        columns = [cache.get(known) for cache in self.caches] if known else []
        return {key: _sight([column[n] for column in columns]) for n, key in enumerate(known)}

    def vectors_at(self, image: RgbImage, points: Points) -> tuple[Tensor, ...]:
        """Each recogniser's unit vector (d,) of a face whose landmarks are known; NaN where they span nothing."""
        found = []
        for net in self.recognisers:
            try:
                crop, _ = crop_face(image, points, net.size, net.margin)
                found.append(net.embed([crop])[0])
            except BadPhotoError:
                found.append(torch.full((net.width,), torch.nan))
        return tuple(found)

    def _rows(self, load: Callable[[], RgbImage]) -> list[Tensor] | None:
        """Landmarks (10), then each recogniser's vector (d,); all NaN without a face; None for an unreadable photo."""
        try:
            # A copy: what Pillow gives cannot be written to, which torch warns of.
            image = np.array(load())
        except BadPhotoError:
            return None
        landmarks = find_landmarks(self.check, image)
        if landmarks is None:
            return [torch.full((10,), torch.nan), *(torch.full((net.width,), torch.nan) for net in self.recognisers)]
        return [torch.from_numpy(landmarks).float().flatten(), *self.vectors_at(image, landmarks)]


def _sight(rows: Sequence[Tensor]) -> Sight:
    landmarks = rows[0]
    found = bool(torch.isfinite(landmarks).all())
    return Sight(landmarks.double().view(5, 2).numpy() if found else None, tuple(rows[1:]))
