"""Standardises the embeddings of a CLIP space and back. Priors compute on standardised embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClipStats:
    """Mean [D] and standard deviation [D] of a space's un-normalised image embeddings, float32."""

    mean: Tensor
    std: Tensor


# z = (e - clip_mean) / clip_std: unCLIP's priors (arXiv 2204.06125, section 2.2) as Kandinsky 2.2 ships them.
def standardise(e: Tensor, stats: ClipStats) -> Tensor:
    """Standardises un-normalised CLIP [..., D] => [..., D], in e's type and on its device."""
    return (e - stats.mean.to(e)) / stats.std.to(e)


def unstandardise(z: Tensor, stats: ClipStats) -> Tensor:
    """Inverts `standardise`: standardised [..., D] => un-normalised CLIP [..., D]."""
    return z * stats.std.to(z) + stats.mean.to(z)
