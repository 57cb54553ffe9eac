"""Pictures that look alike, by small copies of them: the same, the same but for a copy's losses, or turned.

A picture's small copy is 8 x 8 RGB. Two pictures are near if their copies differ little on the whole and nowhere
much, which saving again and resizing leave true: of toybox's pictures saved at half their size with JPEG's quality 60
the copies were 3.5 apart and 16 at most, the nearest two that differ 5.4 and 39.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 8  # pixels of a small copy
APART = 4.0  # of 255: root mean square over all values of two small copies that are near
ANYWHERE = 20.0  # of 255: largest difference of one value
BLOCK = 2048  # pictures compared with all others at once
TURNS = (90, 180, 270)  # degrees, counter-clockwise


def near_pairs(copies: Tensor, turn: int = 0, first: Tensor | None = None) -> list[tuple[int, int]]:
    """Finds the pairs i < j of copies uint8 [n, 8, 8, 3] that are near, j turned by `turn` degrees (then i != j).

    first: numbers of those to compare with all; by default every one with every one.
    """
    import torch

    if len(copies) < 2:
        return []
    turned = torch.rot90(copies, turn // 90, dims=(1, 2))
    a, b = copies.flatten(1).float(), turned.flatten(1).float()
    squares = (b * b).sum(dim=1)
    limit = APART**2 * a.shape[1]
    rows = torch.arange(len(copies)) if first is None else first
    found: list[tuple[int, int]] = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        distance = (a[block] * a[block]).sum(dim=1)[:, None] + squares - 2 * a[block] @ b.T
        i, j = (distance <= limit + 1.0).nonzero(as_tuple=True)
        i = block[i]
        kept = i != j if turn else (i < j if first is None else i != j)
        i, j = i[kept], j[kept]
        for k in range(0, len(i), 65536):
            apart = a[i[k : k + 65536]] - b[j[k : k + 65536]]
            near = (apart.abs().amax(dim=1) <= ANYWHERE) & (apart.square().sum(dim=1) <= limit)
            found += zip(i[k : k + 65536][near].tolist(), j[k : k + 65536][near].tolist(), strict=True)
    return sorted({(min(pair), max(pair)) for pair in found}) if not turn else sorted(set(found))
