"""The panel that judges a verification: a face check and several recognisers, for photos and pictures alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.drawing.embedded_judge import find_landmarks
from ireu_cli.encodings.loop import Encodings, Item
from ireu_cli.faces.align import Points, crop_face
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.judges.face_check import FaceCheck
from ireu_cli.judges.judging import JudgingNet
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage

SIGHT_VERSION = 3
"""Raise it when the same picture gives another sight, so that kept rows are not mixed."""


@dataclass(frozen=True)
class Sight:
    """What the panel saw in one picture: landmarks float64 (5, 2) in pixels, and each recogniser's unit vector (d,).

    Without a face, the landmarks are None and the vectors are NaN.
    """

    landmarks: Points | None
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Faces:
    """A picture made ready for the judges: landmarks float64 (5, 2) and each recogniser's crop; None without a face."""

    points: Points | None
    crops: tuple[RgbImage | None, ...]


@dataclass(frozen=True)
class Panel:
    """The judges, and the caches of what they saw, in the run folder: landmarks first, then one cache a recogniser."""

    check: FaceCheck
    recognisers: tuple[JudgingNet, ...]
    fingerprint: str
    caches: tuple[FeatureCache, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The recognisers' names in the report."""
        return tuple(net.name for net in self.recognisers)

    def look(self, encodings: Encodings, items: Sequence[Item], label: str) -> dict[str, Sight]:
        """Look at pictures.

        Returns:
            Sights by key; a photo that cannot be read is missing.
        """
        bad = encodings.fill(self, items, self.caches, label, "judge")
        known = list(dict.fromkeys(item.key for item in items if item.key not in bad))
        columns = [cache.get(known) for cache in self.caches] if known else []
        return {key: _sight([column[n] for column in columns]) for n, key in enumerate(known)}

    def prepare(self, image: RgbImage) -> Faces:
        """Find the face; see `Look`."""
        # A copy: what Pillow gives cannot be written to, which torch warns of.
        own = np.array(image)
        landmarks = find_landmarks(self.check, own)
        if landmarks is None:
            return Faces(None, tuple(None for _ in self.recognisers))
        return Faces(landmarks, tuple(_crop(net, own, landmarks) for net in self.recognisers))

    def rows(self, prepared: Sequence[Faces]) -> list[Tensor]:
        """Landmarks (n, 10), then each recogniser's vectors (n, d); see `Look`. NaN without a face."""
        absent = torch.full((10,), torch.nan)
        places = [absent if p.points is None else torch.from_numpy(p.points).float().flatten() for p in prepared]
        found = [torch.stack(places)]
        for number, net in enumerate(self.recognisers):
            crops = [faces.crops[number] for faces in prepared]
            rows = torch.full((len(crops), net.width), torch.nan)
            shown = [place for place, crop in enumerate(crops) if crop is not None]
            rows[shown] = net.embed([crop for crop in crops if crop is not None])
            found.append(rows)
        return found


def _crop(net: JudgingNet, image: RgbImage, points: Points) -> RgbImage | None:
    """The face as a recogniser takes it; None where landmarks span nothing."""
    try:
        return crop_face(image, points, net.size, net.margin)[0]
    except BadPhotoError:
        return None


def _sight(rows: Sequence[Tensor]) -> Sight:
    landmarks = rows[0]
    found = bool(torch.isfinite(landmarks).all())
    return Sight(landmarks.double().view(5, 2).numpy() if found else None, tuple(rows[1:]))
