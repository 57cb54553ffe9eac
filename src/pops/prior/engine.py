"""Inference engine: caches the condition's keys and values, runs only the three tokens that change per step.

Its slow twin is `PriorModel.predict_x0`, which computes all 81 slots in every step. The engine computes the same
numbers from fewer slots, exactly, for two reasons:

- A masked slot adds exactly 0 to every sum (see attention.MASKED), so masked slots are left out.
- The mask is causal, and the condition's slots (the operands or the text) stand before those of the step. They see
  neither timestep nor noise, so their keys and values in every block, the `Prefix`, are the same in all steps: they are
  computed once per request. A step then has three tokens: time, noisy embedding, query.

An operator's unconditional branch has the same condition (zeros) in all requests of one length: its prefix is cached
by the engine, under (adapter, length). Nothing cached is ever invalid: the engine packs the weights at construction and
never writes to them, an Adapter is immutable and compared by identity, and the caches give up their oldest entries.

Weights are shared: operators that are adapters run as small layers beside the base's, rows of several operators in one
batch. Knows no samplers, no operators by name, no files.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pops.errors import ModelError, ensure
from pops.prior.adapter import Adapter, adapter_of
from pops.prior.attention import causal, within
from pops.prior.condition import Condition
from pops.prior.config import STEP, PriorConfig
from pops.prior.graphs import graphed
from pops.prior.int8 import products as int8
from pops.prior.layers import FINE, layers
from pops.prior.linear import Linear, Precision, check_precision, compute_dtype, give_back_memory, linear
from pops.prior.prefix import Prefix
from pops.prior.rows import Rows
from pops.prior.tensors import stacked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.graphs import GraphKey, Recorded
    from pops.prior.samplers import Denoise

MAX_PREFIXES = 128  # unconditional prefixes that an engine caches; the least recently used goes first


@dataclass(frozen=True)
class Request:
    """Rows that share an adapter, a guidance scale and an unconditional condition.

    guidance: 1 or less runs the conditional branch alone. unconditional: one row; None: zero tokens in as many slots as
    each row has (every operator).
    """

    condition: Condition
    guidance: float = 1.0
    unconditional: Condition | None = None
    adapter: Adapter | None = None


class Engine:
    """A prior's weights in one precision on one device, packed for it. Threads may share it.

    tensors: by parameter name, read one layer at a time and not kept. Raises ConfigError for a precision that is
    unknown or not available on the device.
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
        self.lock = threading.Lock()  # guards the two caches
        self.zero_prefixes: OrderedDict[tuple[Adapter | None, int], Prefix] = OrderedDict()
        self.recorded: OrderedDict[GraphKey, Recorded] = OrderedDict()  # CUDA only; see graphs.py

    # --- what a request needs before its first step --------------------------------------------------------------

    def adapter(self, weights: Mapping[str, Tensor]) -> Adapter:
        """Converts an adapter's tensors ("P.down", "P.up", "P.delta" of parameter P) to the layers of this engine."""
        return adapter_of(weights, self.config, self.vectors, device=self.device, dtype=self.dtype)

    def prefix(self, condition: Condition, adapter: Adapter | None = None) -> Prefix:
        """Computes the prefix of B rows with k condition tokens each, none masked: their k slots and the text's.

        Raises ModelError for tokens of another width than the prior's, or more of them than it has slots.
        """
        import torch

        c, rows = self.config, Rows(self, [adapter], None)
        tokens = condition.tokens.to(self.device, torch.float32)
        n, k, dim = tokens.shape
        told = f"condition tokens are {dim} wide, this prior takes {c.dim}; use embeddings of this model's space"
        ensure(dim == c.dim, told, ModelError)
        ensure(k <= c.slots, f"{k} condition tokens, but this prior has {c.slots} slots", ModelError)
        if condition.proj is None:
            proj = tokens.new_zeros(n, c.text_dim)
        else:
            proj = condition.proj.to(self.device, torch.float32)
        if "embedding_proj_norm.weight" in self.vectors:
            proj = rows.norm("embedding_proj_norm", proj[:, None])[:, 0]
        h = torch.cat([rows.linear("token", tokens), rows.linear("text", proj[:, None])], 1)
        at = [*range(k), c.slots]  # each slot at its own position; the unused ones between them are left out
        h = h + rows.vector("positional_embedding")[..., at, :]
        if "norm_in.weight" in self.vectors:
            h = rows.norm("norm_in", h)
        mask = causal(k + 1, 0, self.device)
        kv = torch.empty(c.layers, 2, n, c.heads, k + 1, c.width // c.heads, dtype=self.dtype, device=self.device)
        for i in range(c.layers):
            if i < c.layers - 1:
                h = rows.block(i, h, kv[i], mask, k + 1)
            else:  # of the last block only the keys and values are read, which `attention` writes to kv[i]
                rows.attention(i, h, kv[i], mask, 1)
        return Prefix(kv)

    def _zero_prefix(self, length: int, adapter: Adapter | None) -> Prefix:
        """Returns the prefix of an operator's unconditional branch, cached: one row of `length` zero tokens."""
        import torch

        key = (adapter, length)
        with self.lock:
            if key in self.zero_prefixes:
                self.zero_prefixes.move_to_end(key)
                return self.zero_prefixes[key]
        # Outside the lock: two threads may compute it at the same time, and both get the same numbers.
        prefix = self.prefix(Condition(torch.zeros(1, length, self.config.dim)), adapter)
        with self.lock:
            self.zero_prefixes[key] = prefix
            while len(self.zero_prefixes) > MAX_PREFIXES:
                self.zero_prefixes.popitem(last=False)
        return prefix

    # --- steps ---------------------------------------------------------------------------------------------------

    # Classifier-free guidance on the x0 prediction, arXiv 2207.12598 Eq. 6 with s = 1 + w: x = x_u + s (x_c - x_u).
    def denoiser(self, requests: Sequence[Request]) -> Denoise:
        """Returns the guided prediction for the rows of all requests, in their order, as one batch.

        (z [B, D] standardised, t [B]) -> x0 [B, D] float32. Only one thread at a time may call a denoiser, since its
        key and value buffers are written to in every step.
        """
        import torch

        # 1) Prefixes: every request's own, then the unconditional ones of the rows that are guided.
        cond_prefixes, uncond_prefixes = list[Prefix](), list[Prefix]()
        cond_adapters, uncond_adapters = list[Adapter | None](), list[Adapter | None]()
        guided, scales = list[int](), list[float]()
        row = 0
        for request in requests:
            adapter, is_guided = request.adapter, request.guidance > 1
            own = request.unconditional if is_guided else None
            own_uncond = None if own is None else self.prefix(own, adapter)
            for length, c in _by_length(request.condition):
                n = len(c)
                cond_prefixes.append(self.prefix(c, adapter))
                cond_adapters += [adapter] * n
                if is_guided:
                    uncond_prefixes.append((own_uncond or self._zero_prefix(length, adapter)).expand(n))
                    uncond_adapters += [adapter] * n
                    guided += range(row, row + n)
                    scales += [request.guidance] * n
                row += n
        prefix = _joined([*cond_prefixes, *uncond_prefixes])
        step = graphed(self, prefix, [*cond_adapters, *uncond_adapters])

        # 2) A step: all rows, and below them the guided rows once more, on their unconditional prefixes.
        if not guided:
            return lambda z, t: step(z, t)
        rows = torch.tensor([*range(row), *guided], device=self.device)
        index = torch.tensor(guided, device=self.device)
        scale = torch.tensor(scales, device=self.device)[:, None]
        all_guided = len(guided) == row

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            cond, uncond = step(z[rows], t[rows]).split([row, len(guided)])
            if all_guided:
                x0: Tensor = uncond + scale * (cond - uncond)
                return x0
            mixed: Tensor = cond.index_copy(0, index, uncond + scale * (cond[index] - uncond))
            return mixed

        return denoise

    def rows(self, adapters: Sequence[Adapter | None]) -> Rows:
        """Returns the layers for rows with one adapter (or None) each."""
        distinct = list(dict.fromkeys(adapters))
        return Rows(self, distinct, None if len(distinct) == 1 else [distinct.index(a) for a in adapters])

    def step(self, z: Tensor, t: Tensor, kv: Tensor, mask: Tensor, rows: Rows) -> Tensor:
        """Predicts x0 [R, D] float32 from z [R, D], t [R]: the three tokens of a step (STEP), after their prefix.

        kv [blocks, 2, R, heads, prefix slots + STEP, head width]: the prefix's keys and values; **written to**: each
        block overwrites the last STEP slots with the tokens' own. mask: as `graphs.buffers` makes it.
        """
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
            h = rows.block(i, h, kv[i], mask, STEP if i < c.layers - 1 else 1)  # after the last, only the query is read
        return rows.linear("out", rows.norm("norm_out", h))[:, 0].float()


# --- small parts -----------------------------------------------------------------------------------------------------


def _by_length(c: Condition) -> list[tuple[int, Condition]]:
    """Returns the runs of rows with equally many tokens, in order, each without its padding."""
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
    """Joins the rows of all parts; shorter prefixes get masked slots in front.

    Attention does not see the order of slots, since positions are part of the tokens; in front, so that the tokens of a
    step take the same last slots in every row.
    """
    import torch
    from torch.nn.functional import pad

    most = max(p.slots for p in parts)
    kv = torch.cat([pad(p.kv, (0, 0, most - p.slots, 0)) for p in parts], 2)
    if all(p.slots == most for p in parts):
        return Prefix(kv)
    masked = [torch.arange(most, device=kv.device).expand(p.kv.shape[2], -1) < most - p.slots for p in parts]
    return Prefix(kv, torch.cat(masked))


# Sinusoidal embedding of the timestep, arXiv 1706.03762 section 3.5, cosines first.
def _sinusoid(t: Tensor, width: int) -> Tensor:
    """Embeds timesteps: [R] => [R, width] float32."""
    import math

    import torch

    half = width // 2
    speed = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * speed
    return torch.cat([angle.cos(), angle.sin()], 1)
