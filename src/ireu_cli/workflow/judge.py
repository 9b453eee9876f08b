"""The recogniser and the face check of a bundle, looking at photos and drawn pictures alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ireu_cli.errors import ModelError
from ireu_cli.faces.align import Points, crop_face
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.manifest import digest_of
from ireu_cli.models.clip import fingerprint_of
from ireu_cli.models.face_check import FaceCheck, load_face_check
from ireu_cli.models.portrait import Bundle
from ireu_cli.models.recogniser import ALIGNED, Recogniser, load_recogniser
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage

_SIGHT_VERSION = 1
"""Raise it when the same picture gives another sight, so that kept rows are not mixed."""
_BATCH = 32


@dataclass(frozen=True)
class Sight:
    """What was seen in one picture: landmarks float (5, 2) in pixels and the recogniser's unit vector (d,).

    Without a face, the landmarks are None and the vector is NaN.
    """

    landmarks: Points | None
    vector: Tensor


@dataclass(frozen=True)
class Judge:
    """The judges of one bundle, and what they saw before, kept in the run folder."""

    recogniser: Recogniser
    check: FaceCheck
    fingerprint: str
    cache: FeatureCache

    def look(
        self, items: Sequence[tuple[str, Callable[[], RgbImage]]], progress: Callable[[int], None]
    ) -> dict[str, Sight]:
        """Look at pictures, each given by a key that names its content and a way to load it.

        Returns:
            Sights by key; a photo that cannot be read is missing.
        """
        loads = dict(items)
        missing = self.cache.missing(list(loads))
        progress(len(loads) - len(missing))
        for start in range(0, len(missing), _BATCH):
            rows = {key: row for key in missing[start : start + _BATCH] if (row := self._row(loads[key])) is not None}
            if rows:
                self.cache.put(list(rows), torch.stack(list(rows.values())))
            progress(len(missing[start : start + _BATCH]))
        known = [key for key in loads if key in self.cache]
        found = self.cache.get(known) if known else torch.empty(0, 0)
        return {key: _sight(row) for key, row in zip(known, found, strict=True)}

    def see(self, image: RgbImage) -> Sight:
        """Look at one picture, and keep nothing."""
        return _sight(self._seen(image))

    def vector(self, crop: RgbImage) -> Tensor:
        """The recogniser's unit vector (d,) of a face that is aligned already."""
        device = next(self.recogniser.net.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(crop)).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return self.recogniser.embed(pixels)[0].float().cpu()

    def _row(self, load: Callable[[], RgbImage]) -> Tensor | None:
        """As `_seen`; None for an unreadable photo."""
        try:
            # A copy: what Pillow gives cannot be written to, which torch warns of.
            image = np.array(load())
        except BadPhotoError:
            return None
        return self._seen(image)

    def _seen(self, image: RgbImage) -> Tensor:
        """Landmarks (10), then the vector (d,): float32, all NaN without a face."""
        face = self.check.look([image])[0]
        try:
            if face.score < self.check.threshold:
                raise BadPhotoError("shows no face")
            crop, _ = crop_face(image, face.landmarks.astype(np.float64), ALIGNED, 0.0)
        except BadPhotoError:
            return torch.full((10 + self._width,), torch.nan)
        return torch.cat([torch.from_numpy(face.landmarks).flatten(), self.vector(crop)])

    @property
    def _width(self) -> int:
        return int(self.recogniser.net.fc.out_features)


def open_judge(bundle: Bundle, device: str, kept: Path) -> Judge:
    """Load the judges of a bundle.

    Args:
        bundle: where they lie.
        device: torch device.
        kept: the folder of cached features.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    try:
        recogniser = load_recogniser(bundle.folder / bundle.recogniser, device)
        check = load_face_check(bundle.folder / bundle.face_check, device)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"The recogniser or the face check of {bundle.folder} cannot be loaded ({type(error).__name__})",
            "Install the package again, or name an undamaged bundle",
        ) from None
    nets = [fingerprint_of(net.state_dict()) for net in (recogniser.net, check.net)]
    fingerprint = digest_of([_SIGHT_VERSION, *nets, check.threshold])
    return Judge(recogniser, check, fingerprint, FeatureCache(kept / f"sights-{fingerprint[:32]}"))


def _sight(row: Tensor) -> Sight:
    landmarks, vector = row[:10], row[10:]
    found = bool(torch.isfinite(row).all())
    return Sight(landmarks.double().view(5, 2).numpy() if found else None, vector)
