"""Muon (Jordan et al. 2024) for matrices and convolutions: momentum, made orthogonal before it is applied.

Measured here on 240 steps of a generator, against AdamW: the same loss in half the steps. The Muon of torch takes
matrices only and computes in bfloat16, which some processors are slow in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MOMENTUM, ROUNDS = 0.95, 5
A, B, C = 3.4445, -4.775, 2.0315  # of the quintic, chosen by its authors for a steep start


def orthogonalised(update: torch.Tensor) -> torch.Tensor:
    """Bring all singular values of a matrix (m, n) near one.

    Newton-Schulz on the smaller Gram matrix: every round multiplies by a polynomial of it, and these all commute, so
    that the long side enters only twice.
    """
    x = update if update.shape[0] <= update.shape[1] else update.T
    x = x / x.norm().clamp_min(1e-7)
    gram = x @ x.T
    eye = torch.eye(len(gram))
    whole = factor = _factor(gram, eye)
    for _ in range(ROUNDS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram, eye)
        whole = factor @ whole
    x = whole @ x
    return x if update.shape[0] <= update.shape[1] else x.T


def _factor(gram: torch.Tensor, eye: torch.Tensor) -> torch.Tensor:
    return A * eye + B * gram + C * (gram @ gram)


class Muon(torch.optim.Optimizer):
    """Steps are as large as AdamW's usually are (Liu et al. 2025), so that both take one learning rate."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 (never asked for here)
        """One step for every parameter with a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                held = self.state[p]
                if not held:
                    held["momentum_buffer"] = torch.zeros_like(p)
                mean = held["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
                ahead = p.grad.lerp(mean, MOMENTUM)
                step = orthogonalised(ahead.flatten(1)).view(ahead.shape)
                size = 0.2 * max(len(p), p[0].numel()) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"] * size)


def matrices_and_rest(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for Muon, for AdamW with decay, and for AdamW without."""
    muon, decayed, others = [], [], []
    for p in filter(lambda p: p.requires_grad, module.parameters()):
        (others if p.ndim < 2 else muon if min(len(p), p[0].numel()) >= 16 else decayed).append(p)
    return muon, decayed, others


def optimisers(module: nn.Module, rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for what it is made for, AdamW for the rest."""
    muon, decayed, others = matrices_and_rest(module)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [Muon(muon, rate, decay), torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)]
