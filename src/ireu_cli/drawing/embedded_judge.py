"""A bundle's embedded recogniser and face check, which judge one picture at a time; gradients can pass through."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.files.portrait import Bundle
from ireu_cli.errors import ModelError
from ireu_cli.faces.align import Points, crop_face
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.judges.face_check import FaceCheck, load_face_check
from ireu_cli.judges.recogniser import ALIGNED, Recogniser, load_recogniser
from ireu_cli.manifest import digest_of
from ireu_cli.values import RgbImage

_SIGHT_VERSION = 2
"""Raise it when the same picture gives another sight, so that old and new results are not mixed."""


@dataclass(frozen=True)
class Seen:
    """What the judges saw in one picture: landmarks float (5, 2) in pixels and the recogniser's unit vector (d,).

    Without a face, the landmarks are None and the vector is NaN.
    """

    landmarks: Points | None
    vector: Tensor


@dataclass(frozen=True)
class Judge:
    """The judges of one bundle."""

    recogniser: Recogniser
    check: FaceCheck
    fingerprint: str

    def see(self, image: RgbImage) -> Seen:
        """Look at one picture."""
        landmarks = find_landmarks(self.check, image)
        try:
            if landmarks is None:
                raise BadPhotoError("shows no face")
            crop, _ = crop_face(image, landmarks, ALIGNED, 0.0)
        except BadPhotoError:
            return Seen(None, torch.full((int(self.recogniser.net.fc.out_features),), torch.nan))
        return Seen(landmarks, self.recogniser.vector(crop))


def find_landmarks(check: FaceCheck, image: RgbImage) -> Points | None:
    """The landmarks of the face, float64 (5, 2) in pixels; None if the face check finds no face."""
    face = check.look([image])[0]
    return face.landmarks.astype(np.float64) if face.score >= check.threshold else None


def open_judge(bundle: Bundle, device: str) -> Judge:
    """Load the judges of a bundle.

    Args:
        bundle: the bundle that holds them.
        device: torch device.

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
    decides = [_SIGHT_VERSION, recogniser.fingerprint, check.fingerprint, check.threshold]
    return Judge(recogniser, check, digest_of(decides))
