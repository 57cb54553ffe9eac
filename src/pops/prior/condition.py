"""What a prior is conditioned on. Knows no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.errors import ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """What a prior is conditioned on, one row per item.

    tokens [B, k, D]: operand i's standardised embedding in slot i, or the text encoder's last hidden states;
    keep   [B, k] bool, False where a row is padding (masked); None keeps all;
    proj   [B, D]: the text's embedding (the base prior); None feeds zeros (every operator);
    origin [B, D]: what a result's strength is counted from, standardised (see operators.operator); no network reads it.
    """

    tokens: Tensor
    keep: Tensor | None = None
    proj: Tensor | None = None
    origin: Tensor | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def to(self, device: torch.device | str) -> Condition:
        """Returns the condition on another device."""
        rest = (None if x is None else x.to(device, non_blocking=True) for x in (self.keep, self.proj, self.origin))
        return Condition(self.tokens.to(device, non_blocking=True), *rest)

    def __getitem__(self, rows: slice) -> Condition:
        return Condition(
            self.tokens[rows], *(None if x is None else x[rows] for x in (self.keep, self.proj, self.origin))
        )

    def zeros(self) -> Condition:
        """Returns an operator's unconditional condition: as many zero tokens, the same mask, no text."""
        return Condition(self.tokens.new_zeros(self.tokens.shape), self.keep, None)

    def expand(self, n: int) -> Condition:
        """Repeats the single row `n` times; ConfigError if there are more rows."""
        ensure(len(self) == 1, f"only a single condition can be repeated, this one has {len(self)} rows")
        rest = (None if x is None else x.expand(n, -1) for x in (self.keep, self.proj, self.origin))
        return Condition(self.tokens.expand(n, -1, -1), *rest)

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Joins the rows of all parts; shorter ones are padded with masked zero slots, a missing `proj` is zeros.

        `origin` is kept if every part has one.
        """
        import torch
        from torch.nn import functional as F

        slots = max(c.tokens.shape[1] for c in parts)
        ragged = any(c.keep is not None or c.tokens.shape[1] != slots for c in parts)
        has_proj = any(c.proj is not None for c in parts)
        tokens, keeps, projs = [], [], []
        for c in parts:
            pad = slots - c.tokens.shape[1]
            keep = c.tokens.new_ones(c.tokens.shape[:2], dtype=torch.bool) if c.keep is None else c.keep
            tokens.append(F.pad(c.tokens, (0, 0, 0, pad)))
            keeps.append(F.pad(keep, (0, pad), value=False))
            width = next((q.proj.shape[1] for q in parts if q.proj is not None), 0)
            projs.append(c.tokens.new_zeros(len(c), width) if c.proj is None else c.proj)
        origins = [c.origin for c in parts if c.origin is not None]
        return Condition(
            torch.cat(tokens),
            torch.cat(keeps) if ragged else None,
            torch.cat(projs) if has_proj else None,
            torch.cat(origins) if len(origins) == len(parts) else None,
        )
