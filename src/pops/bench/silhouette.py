"""The silhouette of an object read off a picture whose empty background is known.

A pixel belongs to the object where no shade of the background explains its colour: a shadow darkens, and changes no
hue. Grey shifts of the whole picture are taken off first, by its frame. Knows no models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FRAME = 8  # pixels at the edges that objects rarely reach
DARKEST, BRIGHTEST = 0.45, 1.05  # what a shadow may do to the background
OFF = 0.065  # of the colours' range 0..1 (Euclidean): more is the object; chosen on true pictures


def silhouettes(pictures: Tensor, empties: Tensor) -> Tensor:
    """uint8 [n, 3, h, w] and their backgrounds without the object => bool [n, h, w], holes filled."""
    import torch

    seen, behind = pictures.float() / 255, empties.float() / 255
    edge = torch.ones(seen.shape[-2:], dtype=torch.bool)
    edge[FRAME:-FRAME, FRAME:-FRAME] = False
    shift = (seen[..., edge] - behind[..., edge]).median(-1).values
    behind = (behind + shift[..., None, None]).clamp(1e-3, 1)
    shade = ((seen * behind).sum(1) / (behind * behind).sum(1)).clamp(DARKEST, BRIGHTEST)
    return _filled(_opened((seen - shade[:, None] * behind).norm(dim=1) > OFF))


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """bool [n, h, w] twice => intersection over union [n]; 0 where both are empty."""
    return (a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1).clamp_min(1)


def _opened(mask: Tensor) -> Tensor:
    """Without what is thinner than three pixels."""
    inner = -_widest(-mask.float())
    return _widest(inner) > 0


def _filled(mask: Tensor) -> Tensor:
    """With everything that the background cannot reach from the picture's edge."""
    outside = mask.new_zeros(mask.shape)
    outside[:, [0, -1]] = True
    outside[:, :, [0, -1]] = True
    outside &= ~mask
    while True:
        wider = (_widest(outside.float()) > 0) & ~mask
        if bool((wider == outside).all()):
            return ~outside
        outside = wider


def _widest(x: Tensor) -> Tensor:
    """The largest value among a pixel and its eight neighbours."""
    from torch.nn.functional import max_pool2d

    return max_pool2d(x[:, None], 3, 1, 1)[:, 0]
