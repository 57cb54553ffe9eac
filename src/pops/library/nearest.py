"""Search by cosine over all rows, in two ways. Knows no files and no photos.

`nearest` is exact: a float16 product, then float32 for the few that could be the nearest. The product is as fast as
memory is read, so float16 takes half the time of float32. Its rounding error is bounded, so every row that could be
among the nearest is computed again.

`candidates` is for so many rows that reading them takes too long: a row's first AXES coordinates along the principal
axes of all rows tell most of a cosine. They choose the rows that `nearest` then compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Exact = Callable[["Tensor"], "Tensor"]  # numbers of rows [m] int64 -> their cosines with the query [m], float32

# A cosine of float16 rows and query is off by at most 2^-11 for the rows' rounding (Cauchy-Schwarz), as much for the
# query's, 2^-12 for the result's, and less than 10^-4 for a sum in float32.
ROUNDING = 1.5e-3
AXES = 64  # principal axes; twice as many take twice the time
SAMPLE = 20_000  # rows of which the axes are computed
CHUNK = 20_000  # rows that are converted at once


def unit_rows(vectors: Tensor) -> Tensor:
    """Scales rows [n, D] float32 to length 1 => float16."""
    from torch.nn.functional import normalize

    return normalize(vectors, dim=1).half()


def nearest(
    blocks: Sequence[Tensor], query: Tensor, count: int, exact: Exact, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the exactly nearest rows by cosine: (row numbers [k], cosines [k]), nearest first, ties in row order.

    blocks: the rows [n, D] as `unit_rows` makes them, numbered through; query [D] float32; allowed [N] bool: the rows
    that count, all unless given; k = min(count, rows that count).
    """
    import torch
    from torch.nn.functional import linear, normalize

    query = normalize(query.float(), dim=0)
    rough = torch.cat([linear(query.half()[None], rows)[0] for rows in blocks]).float()
    k = _leave(rough, count, allowed)
    if k == 0:
        return torch.empty(0, dtype=torch.int64), torch.empty(0)
    least = rough.topk(k).values[-1]
    near = (rough >= least - 2 * ROUNDING).nonzero().flatten()
    cosines = exact(near)
    if bool((cosines - rough[near]).abs().max() > ROUNDING):  # a machine whose sums are coarser than float32
        near = rough.isfinite().nonzero().flatten()
        cosines = exact(near)
    order = cosines.argsort(descending=True, stable=True)[:k]
    return near[order], cosines[order]


def principal_axes(rows: Tensor) -> Tensor:
    """Returns the axes [D, K] float32 along which rows [N, D] of length 1 are longest: singular vectors of a sample."""
    import torch

    some = rows[:: max(1, len(rows) // SAMPLE)].float()
    vectors: Tensor = torch.linalg.eigh(some.T @ some).eigenvectors
    return vectors[:, -AXES:].contiguous()


def along(axes: Tensor, rows: Tensor) -> Tensor:
    """Returns the coordinates of rows [n, D] along the axes => [n, K] float32."""
    import torch

    parts = [part.float() @ axes for part in rows.split(CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, axes.shape[1])


def candidates(
    codes: Sequence[Tensor], axes: Tensor, query: Tensor, count: int, allowed: Tensor | None = None
) -> Tensor:
    """Returns the numbers [m], ascending, of the `count` rows that are nearest as far as the axes tell; all that count
    if they are fewer.

    codes: blocks of the rows' coordinates, as `along` makes them.
    """
    import torch
    from torch.nn.functional import normalize

    short = normalize(query.float(), dim=0) @ axes
    rough = torch.cat([block @ short for block in codes])
    k = _leave(rough, count, allowed)
    return rough.topk(k, sorted=False).indices.sort().values


def _leave(scores: Tensor, count: int, allowed: Tensor | None) -> int:
    """Sets the scores of rows that do not count to minus infinity; returns min(count, rows that count)."""
    if allowed is None:
        return min(count, len(scores))
    scores[~allowed] = -float("inf")
    return min(count, int(allowed.sum()))
