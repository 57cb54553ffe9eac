"""Exact search by cosine: a float16 product over all rows, then float32 for the few that could be the nearest.

The product is as fast as memory is read, so float16 takes half the time of float32. Its rounding error is bounded, so
every row that could be among the nearest is computed again. Knows no files and no photos.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Exact = Callable[["Tensor"], "Tensor"]  # numbers of rows [m] int64 -> their cosines with the query [m], float32

# A cosine of float16 rows and query is off by at most 2^-11 for the rows' rounding (Cauchy-Schwarz), as much for the
# query's, 2^-12 for the result's, and less than 10^-4 for a sum in float32.
ROUNDING = 1.5e-3


def unit_rows(vectors: Tensor) -> Tensor:
    """Scales rows [n, D] float32 to length 1 => float16."""
    from torch.nn.functional import normalize

    return normalize(vectors, dim=1).half()


def nearest(rows: Tensor, query: Tensor, count: int, exact: Exact) -> tuple[Tensor, Tensor]:
    """Returns the exactly nearest rows by cosine: (row numbers [k], cosines [k]), nearest first, ties in row order.

    rows [N, D] as `unit_rows` makes them, query [D] float32, k = min(count, N).
    """
    import torch
    from torch.nn.functional import linear, normalize

    query = normalize(query.float(), dim=0)
    rough = linear(query.half()[None], rows)[0].float()
    k = min(count, len(rows))
    least = rough.topk(k).values[-1]
    near = (rough >= least - 2 * ROUNDING).nonzero().flatten()
    cosines = exact(near)
    if bool((cosines - rough[near]).abs().max() > ROUNDING):  # a machine whose sums are coarser than float32
        near = torch.arange(len(rows))
        cosines = exact(near)
    order = cosines.argsort(descending=True, stable=True)[:k]
    return near[order], cosines[order]
