"""Losses of the prior: pure functions of tensors, one number per item; the trainer takes their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pops.standardise import ClipStats


# Simple loss of an x0-predicting prior, arXiv 2204.06125 Section 2.2.
def mse(x0: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared error per item: standardised [B, D], [B, D] => [B]."""
    return (x0.float() - target.float()).square().mean(dim=1)


# pOps' instruct loss, arXiv 2406.01300 Section 4; the public code's is right for a batch of one item only.
def instruct(x0: Tensor, target: Tensor, text: Tensor, stats: ClipStats, *, weight: float = 10.0) -> Tensor:
    """Returns mse(x0, target) + weight * (1 - cos(e, text)) per item => [B], where e = x0 * std + mean.

    x0, target [B, D] standardised (the target is the object's own embedding); text [B, D] un-normalised CLIP text
    embeddings; `stats` on x0's device.
    """
    from torch.nn.functional import cosine_similarity

    from pops.standardise import unstandardise

    e = unstandardise(x0.float(), stats)
    return mse(x0, target) + weight * (1 - cosine_similarity(e, text.float(), dim=1))


def cosine(x0: Tensor, target: Tensor, stats: ClipStats) -> Tensor:
    """Returns 1 - the cosine of the un-normalised embeddings per item: standardised [B, D], [B, D] => [B]."""
    from torch.nn.functional import cosine_similarity

    from pops.standardise import unstandardise

    return 1 - cosine_similarity(unstandardise(x0.float(), stats), unstandardise(target.float(), stats), dim=1)


# InfoNCE, arXiv 1807.03748 Eq. 4, with CLIP's temperature at its usual end; ECLIPSE trains a prior so (2312.04655).
def contrastive(x0: Tensor, target: Tensor, stats: ClipStats, *, temperature: float = 0.05) -> Tensor:
    """Returns the cross-entropy of finding each item's own target among the batch's: [B, D], [B, D] => [B].

    x0, target standardised; compared by the cosine of the un-normalised embeddings.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    from pops.standardise import unstandardise

    e, truth = (normalize(unstandardise(x.float(), stats), dim=1) for x in (x0, target))
    own = torch.arange(len(e), device=e.device)
    return cross_entropy(e @ truth.T / temperature, own, reduction="none")
