"""A generator with its judges: features in; pictures, faces and similarities out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.errors import ConfigError
from ireu_cli.faces.align import Points, crop_face, face_matrix
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.swap import Face
from ireu_cli.manifest import digest_of
from ireu_cli.models.clip import Encoder, fingerprint_of
from ireu_cli.models.face_check import FaceCheck, load_face_check
from ireu_cli.models.generator import Generator, load_generators, null_features
from ireu_cli.models.portrait import find_bundle
from ireu_cli.models.recogniser import ALIGNED, Recogniser, load_recogniser
from ireu_cli.steps.interchange import Drawing
from ireu_cli.steps.saliency import Likeness, similarity
from ireu_cli.values import RgbImage
from ireu_cli.workflow.session import Session

_NOWHERE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
"""The map for a picture without a face, whose similarity nobody reads."""


@dataclass(frozen=True)
class Studio:
    """A generator, the recogniser and the face check that judge its pictures, its base prompt and the null features."""

    generator: Generator
    recogniser: Recogniser
    check: FaceCheck
    prompt: str
    null: Tensor

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of everything that decides pictures and judgements, given features and seeds."""
        judges = [fingerprint_of(net.state_dict()) for net in (self.recogniser.net, self.check.net)]
        return digest_of([self.generator.fingerprint, *judges, self.check.threshold, self.prompt])

    def draw(self, features: Tensor, seeds: Sequence[int]) -> list[Drawing]:
        """Draw with the base prompt, and look at what was drawn."""
        pictures = self.generator.draw(features, self.null, [self.prompt] * len(features), seeds)
        return [self._judged(picture) for picture in pictures]

    def face(self, face: Face) -> Tensor:
        """The recogniser's unit vector (d,) of a photo.

        Raises:
            BadPhotoError: its landmarks span nothing.
        """
        crop, _ = crop_face(face.image, face.points, ALIGNED, 0.0)
        return self._embed(crop)

    def likeness(self, photo: Tensor, seeds: Sequence[int], steps: int) -> Likeness:
        """Similarity of sketches, one for each seed, to a photo, given as the recogniser's unit vector (d,)."""

        def of(features: Tensor) -> tuple[Tensor, Tensor]:
            pictures = self.generator.sketch(features, self.null, [self.prompt] * len(features), seeds, steps)
            shown = (pictures.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            matrices = [self._matrix(points) for points in self._points(list(shown))]
            found = torch.tensor([matrix is not None for matrix in matrices])
            filled = torch.stack([_NOWHERE if matrix is None else matrix for matrix in matrices])
            return similarity(pictures, filled, photo, self.recogniser), found

        return of

    def _judged(self, picture: RgbImage) -> Drawing:
        points = self._points([picture])[0]
        if points is None or self._matrix(points) is None:
            return Drawing(picture, None, None)
        crop, _ = crop_face(picture, points, ALIGNED, 0.0)
        return Drawing(picture, self._embed(crop), points)

    def _points(self, pictures: Sequence[RgbImage]) -> list[Points | None]:
        """Landmarks in pixels, None where the check finds no face."""
        seen = self.check.look(pictures)
        return [face.landmarks.astype(np.float64) if face.score >= self.check.threshold else None for face in seen]

    def _matrix(self, points: Points | None) -> Tensor | None:
        if points is None:
            return None
        try:
            return torch.from_numpy(face_matrix(points, ALIGNED, 0.0))
        except BadPhotoError:
            return None

    @torch.no_grad()
    def _embed(self, crop: RgbImage) -> Tensor:
        device = next(self.recogniser.net.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(crop)).to(device).permute(2, 0, 1)[None].float() / 255
        return self.recogniser.embed(pixels)[0].cpu()


def open_studio(session: Session, encoder: Encoder) -> Studio | None:
    """The generator that reads the configured tap, with its judges; None where the encoder brings none.

    Raises:
        ModelError: a part of it cannot be loaded.
    """
    source, tap, device = session.config.encoder.source, session.config.encoder.tap, session.config.run.device
    bundle = find_bundle(source)
    if bundle is None or tap not in {known for _, known in bundle.entries()}:
        return None
    with session.timed("load_generator"):
        generator = load_generators(source, [tap], device)[0]
        recogniser = load_recogniser(bundle.folder / bundle.recogniser, device)
        check = load_face_check(bundle.folder / bundle.face_check, device)
    return Studio(generator, recogniser, check, bundle.prompt, null_features(encoder, tap))


def need_studio(session: Session, encoder: Encoder) -> Studio:
    """The same for a method that cannot do without.

    Raises:
        ConfigError: the encoder has no generator, or none that reads the configured tap.
    """
    studio = open_studio(session, encoder)
    if studio is not None:
        return studio
    bundle = find_bundle(session.config.encoder.source)
    taps = [] if bundle is None else sorted({tap for _, tap in bundle.entries()})
    if not taps:
        raise ConfigError(
            "The saliency method needs a generator, and this encoder comes without one",
            "Use --encoder portrait-mini, or --method swap or variance",
        )
    raise ConfigError(
        f"The saliency method needs a generator that reads the tap {session.config.encoder.tap}, "
        f"and this encoder's generators read {' and '.join(taps)}",
        f"Use --tap {' or --tap '.join(taps)}, or --method swap or variance",
    )
