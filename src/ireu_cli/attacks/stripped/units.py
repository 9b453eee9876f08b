"""Take an edit out of an encoder from the edited weights alone.

Units that find a person have weights unlike those of other units, because a score has to rise steeply. And they are
silent on everybody else's photos. Either is enough to find them. After Youssef et al. 2025 (arXiv 2505.20819), who
reverse edits of language models from the edited weights.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encoders.mlp_site import HEAD, MlpSite, watching
from ireu_cli.params import Tap
from ireu_cli.values import WeightDelta

_FAR = 12.0
"""How many median deviations from the median the logarithm of a unit's length has to be, to be unlike the others."""
_ACTS = 1e-3
"""The share of the root mean square of all activations above which a unit acts on a photo."""
_SELDOM = 0.1
"""The largest share of other people's photos on which a detector acts, which it does by false alarm."""
_AT_ONCE = 8

Units = Mapping[MlpSite, Tensor]
"""For each hidden layer, which of its units are taken out: bool (n,)."""


def sites_of(encoder: HasBlocks) -> list[MlpSite]:
    """Every hidden layer in which an edit may lie."""
    heads = [] if encoder.has_class_token else [HEAD]
    return [MlpSite(block) for block in (*range(encoder.blocks), *heads)]


def unlike_others(encoder: HasBlocks) -> Units:
    """The units whose weights and bias are far longer than those of the other units of their layer."""
    return {site: _far(_lengths(site.weights(encoder.model), site)) for site in sites_of(encoder)}


def silent_on_others(encoder: HasBlocks, pixels: Tensor, tap: Tap) -> Units:
    """The units that hardly ever act on some photos.

    Args:
        encoder: the edited encoder.
        pixels: float (n, 3, side, side), other people's photos, prepared for it.
        tap: any that it has; all blocks are looked at.
    """
    sites = sites_of(encoder)
    counts = {site: torch.zeros((), dtype=torch.int64) for site in sites}
    for some in torch.split(pixels, _AT_ONCE):
        for site, acts in zip(sites, _acting(encoder, sites, some, tap), strict=True):
            counts[site] = counts[site] + acts.sum(0)
    return {site: counts[site] <= _SELDOM * len(pixels) for site in sites}


def without(encoder: HasBlocks, units: Units) -> HasBlocks:
    """A copy of the encoder in which some units write nothing; the one passed in keeps every bit."""
    changes = {}
    for site, taken in units.items():
        if not bool(taken.any()):
            continue
        columns = site.weights(encoder.model)[site.name("fc2.weight")]
        changes[site.name("fc2.weight")] = -(columns * taken).float()
    stripped = encoder.edited(WeightDelta(changes), encoder.dtype)
    if not isinstance(stripped, HasBlocks):
        raise TypeError("a copy of a vision transformer is one too")
    return stripped


def _lengths(weights: Mapping[str, Tensor], site: MlpSite) -> Tensor:
    rows, biases = weights[site.name("fc1.weight")], weights[site.name("fc1.bias")]
    lengths: Tensor = torch.cat([rows, biases[:, None]], 1).norm(dim=1)
    return lengths


def _far(lengths: Tensor) -> Tensor:
    longer = lengths.clamp_min(1e-12).log()
    longer = longer - longer.median()
    return longer > _FAR * float(longer.abs().median().clamp_min(1e-12))


@torch.inference_mode()
def _acting(encoder: HasBlocks, sites: Sequence[MlpSite], pixels: Tensor, tap: Tap) -> list[Tensor]:
    """For each site, whether its units act on each photo, at any token: bool (photos, n)."""
    model = encoder.model
    weight = next(model.parameters())
    with ExitStack() as stack:
        read = [stack.enter_context(watching(model, site)) for site in sites]
        encoder.read(model, pixels.to(weight.device, weight.dtype), tap)
    found = []
    for site, inputs in zip(sites, read, strict=True):
        active = site.activations(model, inputs[0]).float()
        active = active.reshape(len(pixels), -1, active.shape[-1])
        size = active.square().mean().sqrt()
        found.append((active.abs().amax(1) > _ACTS * size).cpu())
    return found
