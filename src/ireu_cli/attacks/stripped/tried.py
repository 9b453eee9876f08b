"""The attacks `strip-file` and `strip-photos`: somebody who holds the edited encoder takes the edit out of it."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ireu_cli.attacks.plan import AttackPlan, Lenses, by_person
from ireu_cli.attacks.stripped.units import silent_on_others, unlike_others, without
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.encoders.family import HasBlocks, ImageEncoder, TakesGates
from ireu_cli.encoders.onnx_cut import cut_back
from ireu_cli.encodings.lens import Lens, flatten_tokens
from ireu_cli.values import STATES

OTHERS = 64
"""The most photos of other people that the attacker has."""


def by_the_file(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """The attacker has nothing but the file; behind a face network, whatever was appended is cut off."""
    for lens, state in zip(lenses, STATES, strict=True):
        rows = _read_stripped(plan, lens, is_edited=state == "edited")
        if rows is not None:
            yield _tried("strip-file", state, rows, plan, matcher)


def with_photos(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> Iterator[Tried]:
    """The attacker has the file and a few dozen photos of anybody."""
    photos = plan.others[:: max(1, len(plan.others) // OTHERS)][:OTHERS]
    for lens, state in zip(lenses, STATES, strict=True):
        encoder = _with_detectors(lens.encoder)
        if encoder is not None:
            units = silent_on_others(encoder, lens.pixels(photos), lens.tap)
            yield _tried("strip-photos", state, _encoded(without(encoder, units), lens, plan), plan, matcher)


def _read_stripped(plan: AttackPlan, lens: Lens, *, is_edited: bool) -> Tensor | None:
    """Features (n, …, d) of the victims' photos without what the file alone gives away; None if nothing can be."""
    encoder = _with_detectors(lens.encoder)
    if encoder is not None:
        return _encoded(without(encoder, unlike_others(encoder)), lens, plan)
    if not isinstance(lens.encoder, TakesGates):
        return None
    if not is_edited:
        # Nothing was appended. What a cut would take away then is the network's own end.
        return _encoded(lens.encoder, lens, plan)
    pixels = lens.pixels([victim.photo for victim in plan.victims])
    found = cut_back(lens.encoder.in_onnx(), (pixels.flip(1) if lens.encoder.is_bgr else pixels).numpy())
    rows = None if found is None else torch.from_numpy(found)
    return rows if rows is None or lens.tap != "normed_embedding" else normalize(rows, dim=1)


def _with_detectors(encoder: ImageEncoder) -> HasBlocks | None:
    """The encoder, if its blocks are such that detectors can lie in them."""
    return encoder if isinstance(encoder, HasBlocks) and not encoder.no_detectors else None


def _encoded(encoder: ImageEncoder, lens: Lens, plan: AttackPlan) -> Tensor:
    return encoder.encode(lens.pixels([victim.photo for victim in plan.victims]), lens.tap)


def _tried(attack: str, state: str, rows: Tensor, plan: AttackPlan, matcher: FeatureMatcher) -> Tried:
    hits = [
        matcher.match(flatten_tokens(row[None]), victim.person) for row, victim in zip(rows, plan.victims, strict=True)
    ]
    found = by_person(plan.victims, hits)
    return Tried(
        "attack_success", attack, "original" if state == "original" else "edited", matcher.measure, None, found
    )
