"""The engine's layers for the rows of a batch, each with its own change or none. Knows no steps and no prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pops.prior.attention import attend

if TYPE_CHECKING:
    from torch import Tensor

    from pops.prior.change import Change
    from pops.prior.engine import Engine


class Rows:
    """One engine's layers for one composition of a batch; what rows differ in is stacked once."""

    def __init__(self, engine: Engine, changes: Sequence[Change | None], of: Sequence[int] | None) -> None:
        """changes: distinct; `of`: for every row its change's index, None: one change for all rows."""
        import torch

        self.engine, self.changes = engine, tuple(changes)
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
        import torch

        x = x.to(self.engine.dtype)
        run = self.engine.layers[name]
        plain = self.changes == (None,)
        y: Tensor = run(x.reshape(-1, x.shape[-1]), gelu and plain).unflatten(0, x.shape[:2])
        if plain:
            return y
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

    def qkv(self, i: int, h: Tensor) -> Sequence[Tensor]:
        """Query, keys and values of block i: three times [R, heads, T, head width]."""
        heads = self.engine.config.heads
        y = self.linear(f"{i}.qkv", self.norm(f"transformer_blocks.{i}.norm1", h)).to(self.engine.dtype)
        return y.view(*y.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def block(self, i: int, h: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """The rest of block i: attention's answer and the feed-forward layer, both added to h."""
        y = attend(q, k, v, mask)
        h = h + self.linear(f"{i}.mix", y.transpose(1, 2).flatten(2))
        inside = self.linear(f"{i}.up", self.norm(f"transformer_blocks.{i}.norm3", h), gelu=True)
        return h + self.linear(f"{i}.down", inside)
