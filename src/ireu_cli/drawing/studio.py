"""A generator with its judges: it turns features into pictures, faces and similarities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ireu_cli.drawing.drawn_faces import Drawing, Likeness, similarity
from ireu_cli.drawing.embedded_judge import Judge, open_judge
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.faces.align import crop_face, face_matrix
from ireu_cli.faces.swap import Face
from ireu_cli.generators.generator import Generator, ToDraw, load_generators
from ireu_cli.generators.side_by_side import draw_each
from ireu_cli.judges.recogniser import ALIGNED
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session

_NOWHERE = np.eye(2, 3)
"""The matrix for a picture without a face, whose similarity is never used."""


@dataclass(frozen=True)
class Studio:
    """A generator, the judges of its pictures, its base prompt and the null features."""

    generator: Generator
    judge: Judge
    prompt: str
    null: Tensor

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of everything that decides pictures and judgements, given features and seeds."""
        return digest_of([self.generator.fingerprint, self.judge.fingerprint, self.prompt])

    def draw(self, features: Tensor, seeds: Sequence[int]) -> list[Drawing]:
        """Draw with the base prompt, and judge the pictures."""
        drawings = []
        rows = zip(features, seeds, strict=True)
        asked = [partial(ToDraw, feature, self.null, self.prompt, seed) for feature, seed in rows]
        for picture in draw_each([(self.generator, one) for one in asked]):
            sight = self.judge.see(picture)
            face = None if sight.landmarks is None else sight.vector
            drawings.append(Drawing(picture, face, sight.landmarks))
        return drawings

    def face(self, face: Face) -> Tensor:
        """The recogniser's unit vector (d,) of a photo.

        Raises:
            BadPhotoError: all its landmarks are at one point.
        """
        crop, _ = crop_face(face.image, face.points, ALIGNED, 0.0)
        # A copy, as gradients cannot pass a product with what was made in inference mode.
        return self.judge.recogniser.vector(crop).clone()

    def likeness(self, photo: Tensor, seeds: Sequence[int], steps: int) -> Likeness:
        """Similarity of sketches, one for each seed, to a photo, given as the recogniser's unit vector (d,)."""

        def of(features: Tensor) -> tuple[Tensor, Tensor]:
            pictures = self.generator.sketch(features, self.null, [self.prompt] * len(features), seeds, steps)
            shown = (pictures.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            places = [self.judge.see(picture).landmarks for picture in shown]
            found = torch.tensor([points is not None for points in places])
            matrices = [_NOWHERE if points is None else face_matrix(points, ALIGNED, 0.0) for points in places]
            frames = torch.from_numpy(np.stack(matrices))
            return similarity(pictures, frames, photo, self.judge.recogniser), found

        return of


def open_studio(session: Session, encoder: ImageEncoder) -> Studio | None:
    """The generator that reads the configured tap, with its judges; None if the encoder comes without one.

    Raises:
        ModelError: a part of it cannot be loaded.
    """
    source, tap, device = session.config.encoder.source, session.config.encoder.tap, session.config.run.device
    bundle = find_bundle(source)
    if bundle is None or not (entries := bundle.entries(lambda read: read == tap)):
        return None
    with session.timed("load_generator"):
        generator = load_generators(source, [tap], device, names=[entries[0].name])[0]
        generator = generator.with_settings(together=session.config.run.pictures_together)
        judge = open_judge(bundle, device)
    return Studio(generator, judge, bundle.prompt, generator.null_of(encoder))
