"""Muon (Jordan 2024; RMS matching of Liu et al., arXiv 2502.16982) for weights of two axes or more, AdamW for the rest.

Kernels of convolutions are taken as matrices [out, in * h * w], which torch.optim.Muon does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of Jordan's post: singular values to about 1 in five rounds
ROUNDS = 5


def orthogonal(g: Tensor) -> Tensor:
    """Matrices [..., m, n] with all singular values near 1 and the singular vectors of g, by Newton-Schulz in bf16."""
    a, b, c = COEFFICIENTS
    wide = g.shape[-2] <= g.shape[-1]
    x = (g if wide else g.mT).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).float()


class Muon(torch.optim.Optimizer):
    """Steps of matrices are orthogonal, and as large as AdamW's would be: lr and weight decay carry over."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        kept = [p for p in parameters if p.requires_grad]
        matrices = [p for p in kept if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16]
        inside = {id(p) for p in matrices}
        rest = [p for p in kept if id(p) not in inside]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "step": 0}
        groups = [{"params": matrices, "matrices": True}, {"params": rest, "matrices": False}]
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] += 1
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            (self._matrices if group["matrices"] else self._others)(group, params)

    def _matrices(self, group: dict[str, Any], params: list[nn.Parameter]) -> None:
        grads = [p.grad for p in params]
        kept = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
        torch._foreach_lerp_(kept, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, kept, group["momentum"])
        alike: dict[tuple[int, int], list[int]] = {}
        for k, g in enumerate(ahead):
            alike.setdefault((g.shape[0], g[0].numel()), []).append(k)
        for (m, n), rows in alike.items():
            steps = orthogonal(torch.stack([ahead[k].reshape(m, n) for k in rows]))
            for k, s in zip(rows, steps, strict=True):
                params[k].add_(s.reshape(params[k].shape), alpha=-0.2 * group["lr"] * max(m, n) ** 0.5)

    def _others(self, group: dict[str, Any], params: list[nn.Parameter]) -> None:
        first, second = group["betas"]
        grads = [p.grad for p in params]
        mean = [self.state[p].setdefault("mean", torch.zeros_like(p)) for p in params]
        square = [self.state[p].setdefault("square", torch.zeros_like(p)) for p in params]
        torch._foreach_lerp_(mean, grads, 1 - first)
        torch._foreach_mul_(square, second)
        torch._foreach_addcmul_(square, grads, grads, 1 - second)
        scale = torch._foreach_sqrt(torch._foreach_div(square, 1 - second ** group["step"]))
        torch._foreach_add_(scale, 1e-8)
        torch._foreach_addcdiv_(params, mean, scale, -group["lr"] / (1 - first ** group["step"]))
