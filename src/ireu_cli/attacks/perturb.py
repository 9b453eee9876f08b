"""Adversarial noise: a change of the pixels, too small to see, that brings a removed person back.

Projected gradient descent in the maximum norm (Madry et al. 2018, arXiv 1706.06083, section 2.1). Steps of constant
length overshoot with a large budget. So they are halved and continue from the best try, much as in Auto-PGD (Croce and
Hein 2020, arXiv 2003.01690, section 3). The attacker knows every weight and passes pixels of any precision at the
encoder's own size, which is more than an upload allows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PhotoLoss = Callable[[Tensor], Tensor]
"""A function from pixels (n, 3, h, w) to the loss of the attacker, float (n,), with gradients.

It is deterministic, and a photo's loss does not depend on other photos."""

NO_FACE = 10.0
"""The loss of a picture without a face: worse than any similarity, which is a cosine."""


def perturb(pixels: Tensor, loss: PhotoLoss, budget: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Change photos within the budget so that the loss becomes small.

    Sign steps of a quarter of the budget start at the photo itself, so nothing is random. If a try is no better than
    the photo's best, or its loss is not finite, the photo goes back to its best and continues with steps half as long.
    If the gradient is not finite, the photo does not move. No parameter gets a gradient or changes.

    Args:
        pixels: float (n, 3, h, w), normalised.
        loss: what the attacker minimises.
        budget: float (3,), or what broadcasts to pixels: the largest change of each pixel; see `epsilon_budget`.
        low: the same for the smallest valid pixel.
        high: the same for the largest valid pixel.
        steps: number of gradients.

    Returns:
        float32 (n, 3, h, w) on the device of `pixels`: for each photo, the try with the smallest loss, which may be the
        photo itself.
    """
    # In the caller's inference mode there would be no gradients at all.
    with torch.inference_mode(False):
        clean = pixels.detach().clone().float()
        budget, low, high = (_channels(part, clean) for part in (budget, low, high))
        # The photo's own pixels are always allowed: rounding may leave black and white just outside the range.
        lower = torch.minimum((clean - budget).clamp_min(low), clean)
        upper = torch.maximum((clean + budget).clamp_max(high), clean)
        current = best = clean
        least = torch.full((len(clean),), torch.inf, device=clean.device)
        slope, stride = torch.zeros_like(clean), (budget / 4).expand_as(clean)
        for step in range(steps + 1):
            value, gradient = _evaluate(loss, current, descends=step < steps)
            better, least = value < least, torch.minimum(value, least)
            best = torch.where(_each(better), current, best)
            slope = torch.where(_each(better), gradient, slope)
            stride = torch.where(_each(better), stride, stride / 2)
            current = (best - stride * slope.sign()).clamp(lower, upper)
            if torch.equal(current, best):
                break
        return best


def epsilon_budget(epsilon: float, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """The bounds of `perturb` for photos that enter the encoder as (pixel - mean) / std, with pixels in [0, 1].

    Args:
        epsilon: largest change of a pixel, in steps of 1/255.
        mean: mean of each channel in the encoder's processor.
        std: the same for the standard deviation.

    Returns:
        budget, low and high, each float32 (3,) in normalised units.
    """
    centre, scale = (torch.tensor(list(part), dtype=torch.float64) for part in (mean, std))
    return (epsilon / 255 / scale).float(), (-centre / scale).float(), ((1 - centre) / scale).float()


def towards_features(encode: Callable[[Tensor], Tensor], wanted: Tensor) -> PhotoLoss:
    """Squared distance to the original encoder's features, divided by their squared norm.

    Args:
        encode: turns pixels (n, 3, h, w) into the edited encoder's features (n, …, d), with gradients.
        wanted: float (n, …, d), the original encoder's features of the same photos.
    """
    with torch.inference_mode(False):
        # Gradients cannot flow through a quotient with tensors made in inference mode.
        goal = wanted.detach().float()
        scale = goal.flatten(1).square().sum(1).clamp_min(1e-12)

    def of(pixels: Tensor) -> Tensor:
        features = encode(pixels).float()
        return (features - goal.to(features)).flatten(1).square().sum(1) / scale.to(features)

    return of


def towards_face(sketch: Callable[[Tensor], tuple[Tensor, Tensor]]) -> PhotoLoss:
    """The negated similarity of the drawn face to the person; a constant if no face is drawn.

    Args:
        sketch: pixels (n, 3, h, w) to similarity (n,), with gradients, and bool (n,): whether the picture has a face.
    """

    def of(pixels: Tensor) -> Tensor:
        similarity, found = sketch(pixels)
        return torch.where(found.to(similarity.device), -similarity, NO_FACE)

    return of


def _evaluate(loss: PhotoLoss, pixels: Tensor, *, descends: bool) -> tuple[Tensor, Tensor]:
    """Loss (n,), infinite if it is NaN, and its gradient, zero if it is NaN or not asked for."""
    leaf = pixels.detach().requires_grad_(descends)
    with torch.set_grad_enabled(descends):
        value = loss(leaf)
    gradient = None
    if value.requires_grad and descends:
        # Only for the pixels: `backward` would leave gradients on the parameters.
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    gradient = torch.zeros_like(leaf) if gradient is None else gradient
    value = value.detach().to(pixels)
    usable = torch.isfinite(gradient).flatten(1).all(1)
    return torch.where(torch.isfinite(value), value, torch.inf), torch.where(_each(usable), gradient, 0.0)


def _channels(value: Tensor, like: Tensor) -> Tensor:
    """Reshape one number a channel to broadcast over pixels; other shapes stay the same."""
    value = value.to(like)
    return value[:, None, None] if value.ndim == 1 else value


def _each(photos: Tensor) -> Tensor:
    """Reshape one value a photo (n,) to broadcast over its pixels."""
    return photos[:, None, None, None]
