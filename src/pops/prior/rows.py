"""The engine's layers for the rows of a batch, each with its own adapter or none. Knows no steps and no prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.adapter import Adapter
    from pops.prior.linear import Linear


class Base(Protocol):
    """What rows need of the engine that they belong to."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def layers(self) -> Mapping[str, Linear]: ...
    @property
    def vectors(self) -> Mapping[str, Tensor]: ...
    @property
    def attention(self) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]: ...


class Rows:
    """One engine's layers for one assignment of adapters to the rows of a batch.

    The base's product is computed for all rows at once; each adapter then adds its own to the rows that have it.
    """

    def __init__(self, engine: Base, adapters: Sequence[Adapter | None], index: Sequence[int] | None) -> None:
        """adapters: distinct; index: of every row's adapter; None: all rows have the one adapter (or none)."""
        import torch

        self.engine, self.adapters = engine, tuple(adapters)
        self.plain = self.adapters == (None,)
        self.single = index is None
        self.index = None if index is None else torch.tensor(index, device=engine.device)
        self._members = {}  # adapter's number -> the rows that have it; made here, so that no step copies to the device
        if index is not None:
            for k, adapter in enumerate(adapters):
                if adapter is not None:
                    members = [row for row, its in enumerate(index) if its == k]
                    self._members[k] = torch.tensor(members, device=engine.device)
        self._stacked: dict[str, Tensor] = {}  # parameter -> its values row by row, filled on first use

    def linear(self, name: str, x: Tensor, gelu: bool = False) -> Tensor:
        """Applies a layer: [R, T, in] => [R, T, out], in the engine's type or float32."""
        x = x.to(self.engine.dtype)
        # GELU is fused into the layer only where no adapter has to be added before it.
        y = self.engine.layers[name](x.flatten(0, 1), gelu and self.plain).view(*x.shape[:2], -1)
        if self.plain:
            return y

        import torch

        if self.single:
            assert self.adapters[0] is not None
            y = self.adapters[0].add(name, x, y)
        else:
            for k, members in self._members.items():
                adapter = self.adapters[k]
                assert adapter is not None
                y.index_copy_(0, members, adapter.add(name, x[members], y[members]).to(y.dtype))
        return torch.nn.functional.gelu(y) if gelu else y

    def vector(self, name: str) -> Tensor:
        """Returns a parameter [..., width], or [R, ..., width] where rows differ in it, without a leading axis of 1."""
        import torch

        base = self.engine.vectors[name]
        values = [base if a is None else a.vectors.get(name, base) for a in self.adapters]
        if self.single or all(v is base for v in values):
            v = values[0]
            return v[0] if v.ndim == 3 else v
        if name not in self._stacked:
            stack = torch.stack([v[0] if v.ndim == 3 else v for v in values])
            self._stacked[name] = stack[self.index]
        return self._stacked[name]

    def norm(self, name: str, h: Tensor) -> Tensor:
        """Applies a layer norm over the width of h [R, T, width], in float32."""
        from torch.nn.functional import layer_norm

        weight, bias = self.vector(f"{name}.weight"), self.vector(f"{name}.bias")
        if weight.ndim == 1:
            return layer_norm(h, h.shape[-1:], weight, bias)
        return layer_norm(h, h.shape[-1:]) * weight[:, None] + bias[:, None]

    def attention(self, i: int, h: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        """Computes block i's attention of the last `queries` tokens of h [R, T, width] => [R, queries, width].

        kv [2, R, heads, S, head width]: **written to**, its last T slots become the tokens' keys and values. The output
        projection ("mix") is still to come.
        """
        y = self.linear(f"{i}.qkv", self.norm(f"transformer_blocks.{i}.norm1", h)).to(self.engine.dtype)
        return self.engine.attention(y, kv, mask, queries)

    def block(self, i: int, h: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        """Runs block i for the last `queries` tokens of h: attention and feed-forward, each with its residual."""
        y = self.attention(i, h, kv, mask, queries)
        h = h[:, -queries:] + self.linear(f"{i}.mix", y)
        inner = self.linear(f"{i}.up", self.norm(f"transformer_blocks.{i}.norm3", h), gelu=True)
        return h + self.linear(f"{i}.down", inner)
