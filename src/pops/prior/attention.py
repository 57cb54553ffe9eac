"""Attention of few queries, and who may see whom. Knows no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASKED = -10000.0  # added to a logit; exp of it is exactly 0 in float32


def causal(n: int, before: int, device: torch.device) -> Tensor:
    """Additive mask [n, before + n]: every one of n slots sees all before them, itself, and earlier ones."""
    import torch

    return torch.full((n, before + n), MASKED, device=device).triu_(before + 1)


def within(qkv: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
    """Attention of the last `queries` of T tokens [R, T, 3 * heads * w] => [R, queries, heads * w].

    kv [2, R, heads, S, w]: keys and values; those of the tokens are written into its last T slots. mask: additive,
    [T, S] or [1 or R, 1, T, S], float32.
    """
    n, tokens, _ = qkv.shape
    q, k, v = qkv.view(n, tokens, 3, kv.shape[2], -1).permute(2, 0, 3, 1, 4)
    kv[0, :, :, -tokens:], kv[1, :, :, -tokens:] = k, v
    y = attend(q[:, :, -queries:], kv[0], kv[1], mask[..., -queries:, :])
    return y.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of [R, heads, T, w] over [R, heads, S, w] with an additive mask, broadcast to [R, heads, T, S].

    Written out on a CPU, where the fused kernel takes up to four times as long for three queries
    (benchmarks/small_attention.py).
    """
    import torch

    if q.device.type != "cpu":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
    shape, scale = q.shape, q.shape[-1] ** -0.5
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = mask.to(q.dtype).expand(*shape[:3], k.shape[1]).flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).view(shape)
