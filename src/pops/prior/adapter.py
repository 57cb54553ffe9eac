"""Adapters in the engine's form: small layers that run beside the base prior's. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.prior.layers import layers
from pops.prior.tensors import stacked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.config import PriorConfig


# LoRA, arXiv 2106.09685 Eq. 3: W x + b + up (down x); here also full differences of W and of b.
@dataclass(frozen=True, eq=False)
class Adapter:
    """What an operator adds to a base prior, by the engine's layers; compared by identity.

    low: layer -> (down [r, in], up [out, r]); dense: layer -> delta [out, in]; bias: layer -> delta [out];
    vectors: parameter -> its value with the adapter (norms, positions, the query).
    """

    low: Mapping[str, tuple[Tensor, Tensor]]
    dense: Mapping[str, Tensor]
    bias: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Returns y [..., out], the base layer's output, plus what this adapter adds for the input x [..., in]."""
        from torch.nn.functional import linear

        if name in self.low:
            down, up = self.low[name]
            y = y + linear(linear(x, down), up)
        if name in self.dense:
            y = y + linear(x, self.dense[name])
        if name in self.bias:
            y = y + self.bias[name]
        return y


def adapter_of(
    weights: Mapping[str, Tensor],
    config: PriorConfig,
    vectors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Adapter:
    """Converts an adapter's tensors ("P.down", "P.up", "P.delta" of parameter P) to the layers of an engine.

    vectors: the engine's parameters that are in no layer; device, dtype: of the engine's layers.
    """

    def cast(value: Tensor) -> Tensor:
        return value.to(device, dtype)

    low: dict[str, tuple[Tensor, Tensor]] = {}
    dense: dict[str, Tensor] = {}
    bias: dict[str, Tensor] = {}
    for name, stems in layers(config).items():
        if found := _low_rank(weights, stems, config.width):
            low[name] = (cast(found[0]), cast(found[1]))
        for kind, into in (("weight", dense), ("bias", bias)):
            keys = [f"{stem}.{kind}.delta" for stem in stems]
            if any(key in weights for key in keys):
                into[name] = cast(stacked([_or_zeros(weights, key, config) for key in keys]))
    adapted = {
        name: value + weights[f"{name}.delta"].to(value)
        for name, value in vectors.items()
        if f"{name}.delta" in weights
    }
    return Adapter(low, dense, bias, adapted)


def _or_zeros(weights: Mapping[str, Tensor], key: str, config: PriorConfig) -> Tensor:
    import torch

    if key in weights:
        return weights[key]
    return torch.zeros(config.shapes[key.removesuffix(".delta")])


def _low_rank(weights: Mapping[str, Tensor], stems: Sequence[str], width: int) -> tuple[Tensor, Tensor] | None:
    """Joins the adapters of stacked matrices: downs stacked [sum r, in], ups block-diagonal [sum out, sum r]."""
    import torch

    found = [(i, s) for i, s in enumerate(stems) if f"{s}.weight.up" in weights]
    if not found:
        return None
    downs = [weights[f"{s}.weight.down"] for _, s in found]
    ups = [weights[f"{s}.weight.up"] for _, s in found]
    if len(stems) == 1:
        return downs[0], ups[0]
    up = torch.zeros(width * len(stems), sum(d.shape[0] for d in downs), dtype=ups[0].dtype)
    rank = 0
    for (i, _), part in zip(found, ups, strict=True):
        up[i * width : (i + 1) * width, rank : rank + part.shape[1]] = part
        rank += part.shape[1]
    return torch.cat(downs), up
