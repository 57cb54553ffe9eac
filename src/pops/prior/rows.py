"""The engine's layers for the rows of a batch, each with its own change or none. Knows no steps and no prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pops.prior.adapter import Change
    from pops.prior.engine import Engine


class Rows:
    """One engine's layers for one composition of a batch; what rows differ in is stacked once."""

    def __init__(self, engine: Engine, changes: Sequence[Change | None], of: Sequence[int] | None) -> None:
        """changes: distinct; `of`: for every row its change's index, None: one change for all rows."""
        import torch

        self.engine, self.changes = engine, tuple(changes)
        self.plain = self.changes == (None,)
        self.single = of is None
        self.of = None if of is None else torch.tensor(of, device=engine.device)
        self._members = {}
        if of is not None:
            for k, change in enumerate(changes):
                if change is not None:
                    members = [row for row, index in enumerate(of) if index == k]
                    self._members[k] = torch.tensor(members, device=engine.device)
        self._stacked: dict[str, Tensor] = {}

    def linear(self, name: str, x: Tensor, gelu: bool = False) -> Tensor:
        """[R, T, in] => [R, T, out], in the engine's type or float32."""
        x = x.to(self.engine.dtype)
        y = self.engine.layers[name](x.flatten(0, 1), gelu and self.plain).view(*x.shape[:2], -1)
        if self.plain:
            return y

        import torch

        if self.single:
            assert self.changes[0] is not None
            y = self.changes[0].add(name, x, y)
        else:
            for k, members in self._members.items():
                change = self.changes[k]
                assert change is not None
                y.index_copy_(0, members, change.add(name, x[members], y[members]).to(y.dtype))
        return torch.nn.functional.gelu(y) if gelu else y

    def vector(self, name: str) -> Tensor:
        """A parameter [..., width], or [R, ..., width] where rows differ in it; a leading axis of one is dropped."""
        import torch

        base = self.engine.vectors[name]
        values = [base if c is None else c.vectors.get(name, base) for c in self.changes]
        if self.single or all(v is base for v in values):
            v = values[0]
            return v[0] if v.ndim == 3 else v
        if name not in self._stacked:
            stack = torch.stack([v[0] if v.ndim == 3 else v for v in values])
            self._stacked[name] = stack[self.of]
        return self._stacked[name]

    def norm(self, name: str, h: Tensor) -> Tensor:
        """Layer norm over the width, in float32; h [R, T, width]."""
        from torch.nn.functional import layer_norm

        weight, bias = self.vector(f"{name}.weight"), self.vector(f"{name}.bias")
        if weight.ndim == 1:
            return layer_norm(h, h.shape[-1:], weight, bias)
        return layer_norm(h, h.shape[-1:]) * weight[:, None] + bias[:, None]

    def attention(self, i: int, h: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        """Block i's attention of the last `queries` tokens of h [R, T, width] => [R, queries, width], to be mixed.

        kv [2, R, heads, S, head width]: its last T slots become the tokens' keys and values.
        """
        y = self.linear(f"{i}.qkv", self.norm(f"transformer_blocks.{i}.norm1", h)).to(self.engine.dtype)
        return self.engine.attention(y, kv, mask, queries)

    def block(self, i: int, h: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        """Block i for the last `queries` tokens of h: attention and the feed-forward layer, both added to it."""
        y = self.attention(i, h, kv, mask, queries)
        h = h[:, -queries:] + self.linear(f"{i}.mix", y)
        inside = self.linear(f"{i}.up", self.norm(f"transformer_blocks.{i}.norm3", h), gelu=True)
        return h + self.linear(f"{i}.down", inside)
