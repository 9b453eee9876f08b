"""Keep a run that is not finished in a tenth of its checkpoint: ``keep.py RUN/last.pt KEPT.safetensors``.

Machines get lost, and days of training with them. A kept file holds the running average of the weights, matrices in
eight bits with a scale for each row, everything else in half precision. ``--begin KEPT.safetensors`` begins a run with
them: the optimiser and the last bits are new, which costs some dozens of steps. It is no model to use.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SCALE = "scale of "


def packed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by name -> int8 matrices and their scales, float16 for the rest; whole numbers stay."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if not weight.is_floating_point():
            found[name] = weight
        elif weight.ndim < 2:
            found[name] = weight.half()
        else:
            scale = weight.flatten(1).abs().amax(1).clamp_min(1e-12).half().float() / 127
            rows = scale.view(-1, *[1] * (weight.ndim - 1))
            found[name] = (weight / rows).round().clamp(-127, 127).to(torch.int8)
            found[SCALE + name] = scale
    return {name: weight.contiguous() for name, weight in found.items()}


def unpacked(kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of ``packed``, but for rounding: float32."""
    found = {}
    for name, weight in kept.items():
        if name.startswith(SCALE):
            continue
        scale = kept.get(SCALE + name)
        if scale is None:
            found[name] = weight.float() if weight.is_floating_point() else weight
        else:
            found[name] = weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))
    return found


def read_kept(file: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """The step and the weights of a kept run."""
    kept = load_file(file)
    return int(kept.pop("step")), unpacked(kept)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("kept", type=Path)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    save_file({**packed(state["average"]), "step": torch.tensor(state["step"])}, args.kept)


if __name__ == "__main__":
    main()
