"""Locate through a generator: find the features that decide whether the drawn face is the person's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.drawing.drawn_faces import Likeness
from ireu_cli.drawing.studio import Studio, open_studio
from ireu_cli.encoders.families import family_of
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ConfigError, PhotoError
from ireu_cli.locating.scores import split_half
from ireu_cli.maths.masks import top_mask
from ireu_cli.session import Session
from ireu_cli.values import FeatureMask, Json, Located


def need_studio(session: Session, encoder: ImageEncoder) -> Studio:
    """The generator that reads the configured tap, with its judges; see `open_studio`.

    Raises:
        ConfigError: the encoder has no generator, or none that reads the configured tap.
    """
    studio = open_studio(session, encoder)
    if studio is not None:
        return studio
    source, tap = session.config.encoder.source, session.config.encoder.tap
    bundle = find_bundle(source)
    taps = [] if bundle is None else sorted({entry.tap for entry in bundle.entries(family_of(source, tap).reads)})
    if not taps:
        raise ConfigError(
            "The saliency method needs a generator, and this encoder comes without one",
            "Use --encoder portrait-mini, or --method swap or variance",
        )
    raise ConfigError(
        f"The saliency method needs a generator that reads the tap {tap}, "
        f"and this encoder's generators read {' and '.join(taps)}",
        f"Use --tap {' or --tap '.join(taps)}, or --method swap or variance",
    )


def photo_saliency(features: Tensor, mean: Tensor, likeness: Likeness, draws: int) -> Tensor | None:
    """|∂ similarity / ∂ feature| · |feature − mean| of one photo, averaged over its drawn pictures.

    To first order, this is how much a feature adds to the likeness compared with the mean person.

    Args:
        features: float (…, d), features of the photo.
        mean: float (…, d), mean of other people.
        likeness: draws pictures from features and compares them with the photo.
        draws: number of pictures.

    Returns:
        float32 (d,); a token tap's products are summed over tokens. None if no picture has a face.
    """
    repeated = features.detach().expand(draws, *features.shape).clone().requires_grad_()
    with torch.enable_grad():
        similarity, found = likeness(repeated)
    if not bool(found.any()):
        return None
    (gradient,) = torch.autograd.grad(similarity[found].sum(), repeated)
    product = (gradient[found].abs() * (features - mean).abs()).mean(0)
    return product.sum(tuple(range(product.ndim - 1))).float() if product.ndim > 1 else product.float()


def locate_by_saliency(rows: Sequence[Tensor | None], fraction: float, rng: torch.Generator) -> Located:
    """Score by the mean saliency over photos.

    Args:
        rows: for each photo, float (d,) from `photo_saliency`, None if no drawn picture has a face.
        fraction: share k of the features to keep.
        rng: draws the halves and the random control.

    Raises:
        PhotoError: no picture of any photo has a face.
    """
    usable = [row for row in rows if row is not None]
    if not usable:
        raise PhotoError(
            f"The generator draws no face from any of the {len(rows)} target photos",
            "Check that each photo shows one face at the place where the encoder expects it, or use --method swap",
        )
    saliency = torch.stack(usable)
    score = saliency.mean(0)
    mask = top_mask(score, fraction)
    control = top_mask(torch.rand(len(score), generator=rng), fraction)
    order = torch.randperm(len(saliency), generator=rng)
    share = score.double() / score.double().sum().clamp_min(1e-30)
    evidence: dict[str, Json] = {
        "chance": float(mask.sum()) / len(mask),
        "photos": len(usable),
        "photos_without_face": len(rows) - len(usable),
        "overlap_across_partners": None,
        "split_half": split_half([saliency[part].mean(0) for part in order.chunk(2)], fraction),
        "captured_saliency": {"mask": float(share[mask].sum()), "random": float(share[control].sum()), "all": 1.0},
    }
    return Located(FeatureMask(mask, score), evidence)
