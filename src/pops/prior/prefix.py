"""Prefix: what the engine keeps of a condition, so that a step runs only its own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the slots before the step's, in every block: [blocks, 2, B, heads, slots, head width].

    masked [B, slots] bool, True where a row has no such slot; None: all rows have all.
    """

    kv: Tensor
    masked: Tensor | None = None

    @property
    def slots(self) -> int:
        return int(self.kv.shape[4])

    def expand(self, n: int) -> Prefix:
        """Repeats the single row `n` times, without copying it."""
        return Prefix(self.kv.expand(-1, -1, n, -1, -1, -1), None if self.masked is None else self.masked.expand(n, -1))
