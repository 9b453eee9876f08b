"""Warp pictures by affine maps so that gradients pass through to the pixels."""

import torch
from torch import Tensor
from torch.nn import functional


def warp(pictures: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Warp each picture to its frame, like `cv2.warpAffine` with linear sampling and a reflected border.

    Args:
        pictures: float (n, c, height, width).
        matrices: float (n, 2, 3), each from pixels of its picture to pixels of the result; a pixel's coordinates are
            those of its centre. No gradient flows to them.
        side: side of the results.

    Returns:
        (n, c, side, side), differentiable with respect to the pictures.
    """
    height, width = pictures.shape[2:]
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(matrices), 1, 3)
    back = torch.linalg.inv(torch.cat([matrices.detach().double().cpu(), last], 1))[:, :2]
    steps = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1) @ back.transpose(1, 2)[:, None]
    # grid_sample counts from -1 to 1 between the outer edges of the outer pixels.
    grid = (2 * places + 1) / torch.tensor([width, height], dtype=torch.float64) - 1
    # In half precision a position in a large picture would be off by a quarter of a pixel.
    kind = torch.promote_types(pictures.dtype, torch.float32)
    sampled = functional.grid_sample(
        pictures.to(kind),
        grid.to(pictures.device, kind),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    return sampled.to(pictures.dtype)
