"""What a search compares: the vectors of a library's photos at length 1, in files beside the tables.

    LIBRARY/search.safetensors  rows [N, D] float16, LanceDB's row ids [N], sha256 of the photos' bytes [N, 32]
    LIBRARY/index.safetensors   principal axes and the rows' coordinates along them, of more than EXACT_MOST photos

Both are made from the tables, so that they may be lost, and are mapped, so that only what a search reads takes time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import PopsError
from pops.files import write_whole
from pops.library.nearest import CHUNK, Exact, along, candidates, nearest, principal_axes
from pops.tensors import opened, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

SEARCH, INDEX = "search.safetensors", "index.safetensors"
EXACT_MOST = 200_000  # photos that are all compared; reading more takes over 50 ms
COMPARED = 1000  # rows that are compared in full where there is an index, and ten more for every photo asked for
_WIDTH = 32  # bytes of a sha256


@dataclass(frozen=True)
class Rows:
    """Rows, numbered through. versions: of the tables they were made from; blocks: [n, D] float16 each; alive [N]: rows
    that still have a photo, None for all; axes and codes: the index, if there is one, codes in blocks like the rows."""

    versions: str
    blocks: list[Tensor]
    ids: Tensor
    digests: Tensor
    alive: Tensor | None = None
    axes: Tensor | None = None
    codes: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids) if self.alive is None else int(self.alive.sum())

    @property
    def lacks_index(self) -> bool:
        """Whether so many rows should have an index, and have none."""
        return self.axes is None and len(self.ids) > EXACT_MOST

    def compared(self, count: int) -> int | None:
        """Returns how many rows a search for `count` photos compares in full; None for all."""
        most = COMPARED + 10 * count
        return None if self.axes is None or most >= len(self.ids) else most

    def nearest(self, query: Tensor, count: int, exact: Exact, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the nearest rows, as `pops.library.nearest.nearest` does: of all, or with an index of those that its
        axes put first.
        """
        some = self.compared(count)
        allowed = self.alive if allowed is None else allowed
        if some is None or self.axes is None:
            return nearest(self.blocks, query, count, exact, allowed)
        near = candidates(self.codes, self.axes, query, some, allowed)
        numbers, cosines = nearest([self.take(near)], query, count, lambda n: exact(near[n]))
        return near[numbers], cosines

    def take(self, numbers: Tensor) -> Tensor:
        """Returns rows [m, D] by their numbers [m], which ascend."""
        import torch

        parts, start = [], 0
        for block in self.blocks:
            inside = numbers[(numbers >= start) & (numbers < start + len(block))]
            parts.append(block[inside - start])
            start += len(block)
        return torch.cat(parts)

    def names(self) -> list[str]:
        """Returns every row's sha256 in hexadecimal."""
        raw = self.digests.numpy().tobytes().hex()
        return [raw[i : i + 2 * _WIDTH] for i in range(0, len(raw), 2 * _WIDTH)]

    def allowed(self, digests: Collection[str]) -> Tensor:
        """Returns which rows [N] bool are alive and of these contents."""
        import torch

        found = torch.tensor([name in digests for name in self.names()], dtype=torch.bool)
        return found if self.alive is None else found & self.alive

    # --- making them

    def updated(self, ids: Mapping[str, int], fresh: Sequence[str], vectors: Tensor, versions: str) -> Rows:
        """Returns these rows as the tables are now. ids: sha256 -> row id, of all photos; fresh: those without a row
        here, whose rows are `vectors` [m, D].
        """
        import torch

        alive = self.allowed(ids)
        codes = [] if self.axes is None else [*self.codes, along(self.axes, vectors)]
        now = torch.tensor([ids.get(name, -1) for name in [*self.names(), *fresh]], dtype=torch.int64)
        alive = torch.cat([alive, torch.ones(len(fresh), dtype=torch.bool)])
        digests = torch.cat([self.digests, packed(fresh)])
        return Rows(versions, [*self.blocks, vectors], now, digests, alive, self.axes, codes)

    def whole(self) -> Rows:
        """Returns the rows that are alive in one block, without an index."""
        import torch

        kept = torch.arange(len(self.ids)) if self.alive is None else self.alive.nonzero().flatten()
        blocks = [block for block in self.blocks if len(block)]
        if len(kept) == len(self.ids) and len(blocks) == 1:
            return Rows(self.versions, blocks, self.ids, self.digests)
        rows = torch.empty(len(kept), self.blocks[0].shape[1], dtype=torch.float16)
        for start in range(0, len(kept), CHUNK):
            rows[start : start + CHUNK] = self.take(kept[start : start + CHUNK])
        return Rows(self.versions, [rows], self.ids[kept], self.digests[kept])

    def indexed(self) -> Rows:
        """Returns the rows with an index."""
        axes = principal_axes(self.blocks[0])
        return replace(self, axes=axes, codes=[along(axes, block) for block in self.blocks])


def none_yet(dim: int) -> Rows:
    """Returns the rows of an empty library."""
    import torch

    return Rows("", [torch.empty(0, dim, dtype=torch.float16)], torch.empty(0, dtype=torch.int64), packed([]))


def packed(digests: Sequence[str]) -> Tensor:
    """Returns sha256 in hexadecimal as bytes [n, 32]."""
    import torch

    raw = bytearray(bytes.fromhex("".join(digests)))
    return torch.frombuffer(raw, dtype=torch.uint8).view(-1, _WIDTH) if raw else torch.empty(0, _WIDTH).byte()


def read_rows(path: Path) -> Rows | None:
    """Returns the rows in a library's files, with the index if it is of these rows; None if they cannot be read."""
    rows = None
    with suppress(PopsError), opened(path / SEARCH, PopsError) as file:
        own, ids, digests = (file.read(name) for name in ("rows", "ids", "digests"))  # mapped: read on use
        rows = Rows(file.metadata.get("versions", ""), [own], ids, digests)
    if rows is None:
        return None
    with suppress(PopsError), opened(path / INDEX, PopsError) as file:
        if file.metadata.get("versions") == rows.versions:
            return replace(rows, axes=file.read("axes"), codes=[file.read("codes")])
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """Writes rows of one block to a library's files, with an index if they are more than EXACT_MOST."""
    tensors = {"rows": rows.blocks[0], "ids": rows.ids, "digests": rows.digests}
    with write_whole(path / SEARCH) as temporary:
        write_tensors(temporary, tensors, {"versions": rows.versions})
    if len(rows) > EXACT_MOST:
        write_index(path, rows)
    else:
        (path / INDEX).unlink(missing_ok=True)


def write_index(path: Path, rows: Rows) -> None:
    """Makes the index of rows of one block, and writes it to a library's file."""
    made = rows.indexed()
    assert made.axes is not None
    with write_whole(path / INDEX) as temporary:
        write_tensors(temporary, {"axes": made.axes, "codes": made.codes[0]}, {"versions": rows.versions})
