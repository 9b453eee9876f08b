"""Adversarial noise: a change of the pixels, too small to see, that brings a removed person back.

Projected gradient descent in the maximum norm (Madry et al. 2018, arXiv 1706.06083, section 2.1). Steps of one length
overshoot what a large budget reaches, so they are halved and go on from the best try, much as in Auto-PGD (Croce and
Hein 2020, arXiv 2003.01690, section 3). The attacker knows every weight and hands in pixels of any precision at the
encoder's own size, which is more than an upload allows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PhotoLoss = Callable[[Tensor], Tensor]
"""Pixels (n, 3, h, w) to what the attacker minimises, float (n,), one number a photo that no other photo changes; with
gradients to the pixels, and the same each time."""

NO_FACE = 10.0
"""Loss of a picture without a face: worse than any similarity, which is a cosine."""


def perturb(pixels: Tensor, loss: PhotoLoss, budget: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Change photos within the budget so that the loss becomes small.

    Sign steps of a quarter of the budget begin at the photo itself, so nothing is random. After a try that is no better
    than its best, or whose loss is not finite, a photo goes back to its best and on from there in steps half as long;
    where the gradient is not finite, it stays. No parameter gets a gradient or changes.

    Args:
        pixels: float (n, 3, h, w), normalised.
        loss: what the attacker minimises.
        budget: float (3,), or what broadcasts to pixels: how far each pixel may move; see `epsilon_budget`.
        low: the same, the least valid pixel.
        high: the same, the greatest valid pixel.
        steps: how many gradients are taken.

    Returns:
        float32 (n, 3, h, w) on the device of `pixels`: of each photo, the try with the smallest loss, the photo itself
        included.
    """
    # A caller in inference mode would get no gradients at all.
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
    """What `perturb` may do to photos that enter the encoder as (pixel - mean) / std, pixels in [0, 1].

    Args:
        epsilon: how far a pixel may move, in steps of 1/255.
        mean: of each channel, as the encoder's processor has it.
        std: of each channel.

    Returns:
        budget, low and high, each float32 (3,) in normalised units.
    """
    centre, scale = (torch.tensor(list(part), dtype=torch.float64) for part in (mean, std))
    return (epsilon / 255 / scale).float(), (-centre / scale).float(), ((1 - centre) / scale).float()


def towards_features(encode: Callable[[Tensor], Tensor], wanted: Tensor) -> PhotoLoss:
    """Squared distance to the original encoder's features over their squared norm.

    Args:
        encode: pixels (n, 3, h, w) to the edited encoder's features (n, …, d), with gradients.
        wanted: float (n, …, d), what the original encoder says of the same photos.
    """
    with torch.inference_mode(False):
        # Gradients cannot pass a quotient with what was made in inference mode.
        goal = wanted.detach().float()
        scale = goal.flatten(1).square().sum(1).clamp_min(1e-12)

    def of(pixels: Tensor) -> Tensor:
        features = encode(pixels).float()
        return (features - goal.to(features)).flatten(1).square().sum(1) / scale.to(features)

    return of


def towards_face(sketch: Callable[[Tensor], tuple[Tensor, Tensor]]) -> PhotoLoss:
    """The drawn face's similarity to the person, negated; a constant where no face is drawn.

    Args:
        sketch: pixels (n, 3, h, w) to similarity (n,), with gradients, and bool (n,): whether the picture has a face.
    """

    def of(pixels: Tensor) -> Tensor:
        similarity, found = sketch(pixels)
        return torch.where(found.to(similarity.device), -similarity, NO_FACE)

    return of


def _evaluate(loss: PhotoLoss, pixels: Tensor, *, descends: bool) -> tuple[Tensor, Tensor]:
    """Loss (n,), infinite where it is no number, and its gradient, zero where it is no number or not asked for."""
    leaf = pixels.detach().requires_grad_(descends)
    with torch.set_grad_enabled(descends):
        value = loss(leaf)
    gradient = None
    if value.requires_grad and descends:
        # Of the pixels only: `backward` would leave gradients with the parameters.
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    gradient = torch.zeros_like(leaf) if gradient is None else gradient
    value = value.detach().to(pixels)
    usable = torch.isfinite(gradient).flatten(1).all(1)
    return torch.where(torch.isfinite(value), value, torch.inf), torch.where(_each(usable), gradient, 0.0)


def _channels(value: Tensor, like: Tensor) -> Tensor:
    """One number a channel, or what broadcasts already, next to the pixels."""
    value = value.to(like)
    return value[:, None, None] if value.ndim == 1 else value


def _each(photos: Tensor) -> Tensor:
    """One value a photo (n,), to broadcast over its pixels."""
    return photos[:, None, None, None]
