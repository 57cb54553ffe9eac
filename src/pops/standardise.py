"""The statistics that standardise a space, and the two directions; a prior works standardised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClipStats:
    """Of the un-normalised image embeddings of a space: mean [D] and standard deviation [D], float32."""

    mean: Tensor
    std: Tensor


# z = (e - clip_mean) / clip_std: unCLIP's priors (arXiv 2204.06125, section 2.2) as Kandinsky 2.2 ships them.
def standardise(e: Tensor, stats: ClipStats) -> Tensor:
    """Un-normalised CLIP [..., D] => standardised [..., D], in e's type and on its device."""
    return (e - stats.mean.to(e)) / stats.std.to(e)


def unstandardise(z: Tensor, stats: ClipStats) -> Tensor:
    """Standardised [..., D] => un-normalised CLIP [..., D]: the inverse of `standardise`."""
    return z * stats.std.to(z) + stats.mean.to(z)
