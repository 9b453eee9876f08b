"""The attacks `strip-file` and `strip-photos`: somebody who holds the edited encoder takes the edit out of it."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ireu_cli.attacks.by_gradient import features_of, tried_on
from ireu_cli.attacks.plan import AttackPlan, Lenses
from ireu_cli.attacks.stripped.units import silent_on_others, unlike_others, without
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.encoders.family import HasBlocks, ImageEncoder, TakesGates
from ireu_cli.encoders.onnx_cut import cut_back
from ireu_cli.encodings.lens import Lens
from ireu_cli.values import STATES

OTHERS = 64
"""The most photos of other people that the attacker has."""


def by_the_file(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """The attacker has nothing but the file; behind a face network, whatever was appended is cut off."""
    pixels = _attacked(plan, lenses)
    for lens, state in zip(lenses, STATES, strict=True):
        rows = _read_stripped(lens, pixels, is_edited=state == "edited")
        if rows is not None:
            yield tried_on("strip-file", state, rows, plan, matcher)


def with_photos(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """The attacker has the file and a few dozen photos of anybody."""
    if _with_detectors(lenses.edited.encoder) is None:
        return
    photos = plan.others[:: max(1, len(plan.others) // OTHERS)][:OTHERS]
    pixels, others = _attacked(plan, lenses), lenses.original.pixels(photos)
    for lens, state in zip(lenses, STATES, strict=True):
        encoder = _with_detectors(lens.encoder)
        if encoder is not None:
            stripped = without(encoder, silent_on_others(encoder, others, lens.tap))
            yield tried_on("strip-photos", state, features_of(stripped, lens.tap, pixels), plan, matcher)


def _attacked(plan: AttackPlan, lenses: Lenses) -> Tensor:
    """The victims' photos, which an edit prepares as the original does: (n, 3, side, side)."""
    return lenses.original.pixels([victim.photo for victim in plan.victims])


def _read_stripped(lens: Lens, pixels: Tensor, *, is_edited: bool) -> Tensor | None:
    """Features (n, …, d) of pixels without what the file alone gives away; None if nothing can be."""
    encoder = _with_detectors(lens.encoder)
    if encoder is not None:
        return features_of(without(encoder, unlike_others(encoder)), lens.tap, pixels)
    if not isinstance(lens.encoder, TakesGates):
        return None
    if not is_edited:
        # Nothing was appended. What a cut would take away then is the network's own end.
        return features_of(lens.encoder, lens.tap, pixels)
    found = cut_back(lens.encoder.in_onnx(), (pixels.flip(1) if lens.encoder.is_bgr else pixels).numpy())
    rows = None if found is None else torch.from_numpy(found)
    return rows if rows is None or lens.tap != "normed_embedding" else normalize(rows, dim=1)


def _with_detectors(encoder: ImageEncoder) -> HasBlocks | None:
    """The encoder, if its blocks are such that detectors can lie in them."""
    return encoder if isinstance(encoder, HasBlocks) and not encoder.no_detectors else None
