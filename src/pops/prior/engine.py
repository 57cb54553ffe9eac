"""The engine: a prior's arithmetic on what changes from step to step, and nothing else.

Its slow twin is `PriorModel.predict_x0`, all 81 slots every step. The same numbers come from less, for two reasons
(both exact): masked slots never reach the query, so they are left out; and the mask is causal, so the condition's slots
see neither timestep nor noise: their keys and values are computed once, and a step has three tokens (time, noisy
embedding, query). The guidance branch's condition is the same for all requests of a length: kept for good.

Weights are shared: operators that are adapters run as small changes beside the base's layers, rows of several operators
in one batch. Knows no samplers, no operators by name, no files.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pops.errors import ModelError, ensure
from pops.prior.adapter import Change, change_of
from pops.prior.attention import causal, within
from pops.prior.condition import Condition
from pops.prior.config import STEP, PriorConfig
from pops.prior.graphs import graphed
from pops.prior.int8 import products as int8
from pops.prior.layers import FINE, layers
from pops.prior.linear import Linear, Precision, check_precision, compute_dtype, give_back_memory, linear
from pops.prior.rows import Rows
from pops.prior.tensors import stacked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.samplers import Denoise

KEPT = 128  # prefixes of guidance branches that an engine keeps, the oldest given up first


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the slots before the step's, in every block: [blocks, 2, B, heads, slots, head width].

    hidden [B, slots] bool, True where a row has no such slot; None: all rows have all.
    """

    kv: Tensor
    hidden: Tensor | None = None

    @property
    def slots(self) -> int:
        return int(self.kv.shape[4])

    def expand(self, n: int) -> Prefix:
        """The one row, `n` times."""
        return Prefix(self.kv.expand(-1, -1, n, -1, -1, -1), None if self.hidden is None else self.hidden.expand(n, -1))


@dataclass(frozen=True)
class Request:
    """Rows that share a change of the weights, a scale of guidance, and what guidance leads away from.

    unconditional: one row; None: zero tokens in as many slots as each row has (every operator).
    """

    condition: Condition
    guidance: float = 1.0
    unconditional: Condition | None = None
    change: Change | None = None


class Engine:
    """A prior's weights in one precision on one device, packed for it. Threads share it.

    `tensors` are read one at a time and not kept. Raises ConfigError for a precision that the device does not have.
    """

    def __init__(
        self,
        config: PriorConfig,
        tensors: Mapping[str, Tensor],
        *,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        import torch

        self.config, self.precision, self.device = config, precision, torch.device(device)
        check_precision(precision, self.device.type)
        self.dtype = compute_dtype(precision)
        self.attention = int8.Attention() if precision == "int8" and int8.available() else within
        self.layers: dict[str, Linear] = {}
        taken: set[str] = set()
        with torch.no_grad():
            for name, stems in layers(config).items():
                weight = stacked([tensors[f"{stem}.weight"] for stem in stems])
                bias = stacked([tensors[f"{stem}.bias"] for stem in stems])
                self.layers[name] = linear(weight, bias, precision, self.device, fine=name.rpartition(".")[2] in FINE)
                taken |= {f"{stem}.{part}" for stem in stems for part in ("weight", "bias")}
                del weight, bias
                give_back_memory()
            self.vectors = {name: tensors[name].to(self.device, torch.float32) for name in tensors if name not in taken}
        self.lock = threading.Lock()
        self.kept: OrderedDict[tuple[Any, int], Prefix] = OrderedDict()
        self.steps: dict[Any, Any] = {}

    # --- what a request needs before its first step --------------------------------------------------------------

    def change(self, weights: Mapping[str, Tensor]) -> Change:
        """An adapter's tensors ("P.down", "P.up", "P.delta" of parameter P) in the form that this engine runs."""
        return change_of(weights, self.config, self.vectors, device=self.device, dtype=self.dtype)

    def prefix(self, condition: Condition, change: Change | None = None) -> Prefix:
        """Of B rows with equally many condition tokens each, none masked."""
        import torch

        c, rows = self.config, Rows(self, [change], None)
        tokens = condition.tokens.to(self.device, torch.float32)
        n, k, dim = tokens.shape
        ensure(dim == c.dim, f"condition tokens are {dim} wide, this prior takes {c.dim}", ModelError)
        ensure(k <= c.slots, f"{k} condition tokens, but this prior has {c.slots} slots", ModelError)
        if condition.proj is None:
            proj = tokens.new_zeros(n, c.text_dim)
        else:
            proj = condition.proj.to(self.device, torch.float32)
        if "embedding_proj_norm.weight" in self.vectors:
            proj = rows.norm("embedding_proj_norm", proj[:, None])[:, 0]
        h = torch.cat([rows.linear("token", tokens), rows.linear("text", proj[:, None])], 1)
        at = [*range(k), c.slots]
        h = h + rows.vector("positional_embedding")[..., at, :]
        if "norm_in.weight" in self.vectors:
            h = rows.norm("norm_in", h)
        mask = causal(k + 1, 0, self.device)
        kv = torch.empty(c.layers, 2, n, c.heads, k + 1, c.width // c.heads, dtype=self.dtype, device=self.device)
        for i in range(c.layers):
            if i < c.layers - 1:
                h = rows.block(i, h, kv[i], mask, k + 1)
            else:  # of the last block nothing but keys and values is ever read
                rows.attention(i, h, kv[i], mask, 1)
        return Prefix(kv)

    def _zero_prefix(self, length: int, change: Change | None) -> Prefix:
        """The guidance branch of an operator: zero tokens in `length` slots; one row, kept."""
        import torch

        key = (change, length)
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        prefix = self.prefix(Condition(torch.zeros(1, length, self.config.dim)), change)
        with self.lock:
            self.kept[key] = prefix
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        return prefix

    # --- steps ---------------------------------------------------------------------------------------------------

    def denoiser(self, requests: Sequence[Request]) -> Denoise:
        """The guided prediction for the rows of all requests, in their order, as one batch.

        (z [B, D] standardised, t [B]) -> x0 [B, D] float32. One denoiser serves one thread at a time.
        """
        import torch

        # 1) Prefixes: every request's own, then those of the guidance branches of the rows that have one.
        parts, free_parts = list[Prefix](), list[Prefix]()
        changes, free_changes = list[Change | None](), list[Change | None]()
        guided, scales = list[int](), list[float]()
        row = 0
        for request in requests:
            change, away = request.change, request.unconditional
            free = None if away is None or request.guidance <= 1 else self.prefix(away, change)
            for length, c in _by_length(request.condition):
                n = len(c)
                parts.append(self.prefix(c, change))
                changes += [change] * n
                if request.guidance > 1:
                    free_parts.append((free or self._zero_prefix(length, change)).expand(n))
                    free_changes += [change] * n
                    guided += range(row, row + n)
                    scales += [request.guidance] * n
                row += n
        prefix = _joined([*parts, *free_parts])
        step = graphed(self, prefix, [*changes, *free_changes])

        # 2) A step: all rows, and once more those that are guided.
        if not guided:
            return lambda z, t: step(z, t)
        rows = torch.tensor([*range(row), *guided], device=self.device)
        index = torch.tensor(guided, device=self.device)
        scale = torch.tensor(scales, device=self.device)[:, None]
        everyone = len(guided) == row

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            x0, free = step(z[rows], t[rows]).split([row, len(guided)])
            if everyone:
                away: Tensor = free + scale * (x0 - free)
                return away
            mixed: Tensor = x0.index_copy(0, index, free + scale * (x0[index] - free))
            return mixed

        return denoise

    def rows(self, changes: Sequence[Change | None]) -> Rows:
        """The layers for rows with one change each."""
        distinct = list(dict.fromkeys(changes))
        return Rows(self, distinct, None if len(distinct) == 1 else [distinct.index(c) for c in changes])

    def step(self, z: Tensor, t: Tensor, kv: Tensor, mask: Tensor, rows: Rows) -> Tensor:
        """x0 [R, D] float32 of z [R, D], t [R]; kv has STEP slots after the prefix's, which are written over."""
        import torch

        c = self.config
        wave = _sinusoid(t, c.width)
        time = rows.linear("time2", torch.nn.functional.silu(rows.linear("time1", wave[:, None])))
        noisy = rows.linear("noisy", z[:, None].float())
        query = rows.vector("prd_embedding").expand(len(z), 1, -1)
        h = torch.cat([time, noisy, query], 1) + rows.vector("positional_embedding")[..., -STEP:, :]
        if "norm_in.weight" in self.vectors:
            h = rows.norm("norm_in", h)
        for i in range(c.layers):
            h = rows.block(i, h, kv[i], mask, STEP if i < c.layers - 1 else 1)  # at last the query's row alone is read
        return rows.linear("out", rows.norm("norm_out", h))[:, 0].float()


# --- small parts -----------------------------------------------------------------------------------------------------


def _by_length(c: Condition) -> list[tuple[int, Condition]]:
    """Runs of rows with equally many tokens, in order, each without its padding."""
    if c.keep is None:
        return [(c.tokens.shape[1], c)]
    lengths = [int(n) for n in c.keep.sum(1)]
    for keep, n in zip(c.keep, lengths, strict=True):
        ensure(bool(keep[:n].all()), "a condition's padding must come after its tokens", ModelError)
    out, start = [], 0
    for n, run in groupby(lengths):
        stop = start + len(list(run))
        proj = None if c.proj is None else c.proj[start:stop]
        out.append((n, Condition(c.tokens[start:stop, :n], None, proj)))
        start = stop
    return out


def _joined(parts: Sequence[Prefix]) -> Prefix:
    """The rows of all parts; shorter ones get hidden slots in front."""
    import torch
    from torch.nn.functional import pad

    most = max(p.slots for p in parts)
    kv = torch.cat([pad(p.kv, (0, 0, most - p.slots, 0)) for p in parts], 2)
    if all(p.slots == most for p in parts):
        return Prefix(kv)
    hidden = [torch.arange(most, device=kv.device).expand(p.kv.shape[2], -1) < most - p.slots for p in parts]
    return Prefix(kv, torch.cat(hidden))


# Sinusoidal embedding of the timestep, arXiv 1706.03762 section 3.5, cosines first.
def _sinusoid(t: Tensor, width: int) -> Tensor:
    """[R] => [R, width] float32."""
    import math

    import torch

    half = width // 2
    speed = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * speed
    return torch.cat([angle.cos(), angle.sin()], 1)
