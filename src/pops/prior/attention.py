"""Attention for few queries, and the causal mask. Knows no weights.

Shapes: R rows of a batch, T tokens of this call, S slots in all (those before, then the T tokens), w width of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Added to a logit. In float32 the exponential of anything below about -104 is exactly 0, so a masked slot contributes
# nothing, not even in the last place: leaving it out gives the same sums. Finite, since -inf - -inf is NaN.
MASKED = -10000.0


def causal(n: int, before: int, device: torch.device) -> Tensor:
    """Returns the additive mask [n, before + n] by which each of n slots sees all `before`, earlier ones and itself."""
    import torch

    return torch.full((n, before + n), MASKED, device=device).triu_(before + 1)


def within(qkv: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
    """Computes the attention of the last `queries` of T tokens [R, T, 3 * heads * w] => [R, queries, heads * w].

    kv [2, R, heads, S, w]: keys and values; **written to**: its last T slots receive those of the tokens, so that one
    buffer serves all steps. mask: additive, [T, S] or [1 or R, 1, T, S], float32.
    """
    n, tokens, _ = qkv.shape
    q, k, v = qkv.view(n, tokens, 3, kv.shape[2], -1).permute(2, 0, 3, 1, 4)
    kv[0, :, :, -tokens:], kv[1, :, :, -tokens:] = k, v
    y = attend(q[:, :, -queries:], kv[0], kv[1], mask[..., -queries:, :])
    return y.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Computes attention of [R, heads, T, w] over [R, heads, S, w]; mask: additive, broadcast to [R, heads, T, S].

    Written out on a CPU, where the fused kernel takes up to four times as long for three queries
    (benchmarks/small_attention.py).
    """
    import torch

    if q.device.type != "cpu":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
    shape, scale = q.shape, q.shape[-1] ** -0.5
    # Rows and heads become one batch axis, so that both products are one bmm, and the first adds the mask as it goes.
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = mask.to(q.dtype).expand(*shape[:3], k.shape[1]).flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).view(shape)
