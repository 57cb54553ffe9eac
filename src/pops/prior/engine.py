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
from pops.prior.condition import Condition
from pops.prior.config import PriorConfig
from pops.prior.graphs import graphed
from pops.prior.linear import Linear, Precision, check_precision, compute_dtype, give_back_memory, linear

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.samplers import Denoise

MASKED = -10000.0  # added to a logit; exp of it is exactly 0 in float32
STEP = 3  # tokens of a step: time, noisy embedding, query
KEPT = 128  # prefixes of guidance branches that an engine keeps, the oldest given up first

# The layers by the engine's names -> the parameters' stems. Several stems: one matrix, their rows stacked.
_ENDS = {
    "time1": ("time_embedding.linear_1",),
    "time2": ("time_embedding.linear_2",),
    "noisy": ("proj_in",),
    "token": ("encoder_hidden_states_proj",),
    "text": ("embedding_proj",),
    "out": ("proj_to_clip_embeddings",),
}
_BLOCK = {
    "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "mix": ("attn1.to_out.0",),
    "up": ("ff.net.0.proj",),
    "down": ("ff.net.2",),
}

# Layers whose activations int8 would round too much: in 16 bits, the error falls from 2.5 % to 1.7 % (docs/log.md).
FINE = (*_ENDS, "qkv", "mix")


def layers(config: PriorConfig) -> dict[str, tuple[str, ...]]:
    """Every matrix of the engine by name ("time1", "3.qkv", ...) -> the stems of its parameters."""
    blocks = {
        f"{i}.{name}": tuple(f"transformer_blocks.{i}.{stem}" for stem in stems)
        for i in range(config.layers)
        for name, stems in _BLOCK.items()
    }
    return {**_ENDS, **blocks}


# A low-rank change, arXiv 2106.09685 Eq. 3: W x + b + up (down x), here with a change of b, or a full one of W.
@dataclass(frozen=True, eq=False)
class Change:
    """What an adapter adds to a base prior, in the engine's layers; compared by identity.

    low: layer -> (down [r, in], up [out, r]); dense: layer -> delta [out, in]; bias: layer -> delta [out];
    vectors: parameter -> its changed value (norms, positions, the query).
    """

    low: Mapping[str, tuple[Tensor, Tensor]]
    dense: Mapping[str, Tensor]
    bias: Mapping[str, Tensor]
    vectors: Mapping[str, Tensor]

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """y [..., out] of a layer, with this change of the layer on x [..., in]."""
        from torch.nn.functional import linear as plain

        if name in self.low:
            down, up = self.low[name]
            y = y + plain(plain(x, down), up)
        if name in self.dense:
            y = y + plain(x, self.dense[name])
        if name in self.bias:
            y = y + self.bias[name]
        return y


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
        self.layers: dict[str, Linear] = {}
        taken: set[str] = set()
        with torch.no_grad():
            for name, stems in layers(config).items():
                weight = _stacked([tensors[f"{stem}.weight"] for stem in stems])
                bias = _stacked([tensors[f"{stem}.bias"] for stem in stems])
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
        low: dict[str, tuple[Tensor, Tensor]] = {}
        dense: dict[str, Tensor] = {}
        bias: dict[str, Tensor] = {}
        for name, stems in layers(self.config).items():
            if found := _low_rank(weights, stems, self.config.width):
                low[name] = (self._cast(found[0]), self._cast(found[1]))
            for kind, into in (("weight", dense), ("bias", bias)):
                keys = [f"{stem}.{kind}.delta" for stem in stems]
                if any(key in weights for key in keys):
                    into[name] = self._cast(_stacked([_or_zeros(weights, key, self.config) for key in keys]))
        vectors = {
            name: value + weights[f"{name}.delta"].to(value)
            for name, value in self.vectors.items()
            if f"{name}.delta" in weights
        }
        return Change(low, dense, bias, vectors)

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype)

    def prefix(self, condition: Condition, change: Change | None = None) -> Prefix:
        """Of B rows with equally many condition tokens each, none masked."""
        import torch

        c, rows = self.config, _Rows(self, [change], None)
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
            q, kv[i, 0], kv[i, 1] = rows.qkv(i, h)
            if i < c.layers - 1:  # of the last block nothing but keys and values is ever read
                h = rows.block(i, h, q, kv[i, 0], kv[i, 1], mask)
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

    def rows(self, changes: Sequence[Change | None]) -> _Rows:
        """The layers for rows with one change each."""
        distinct = list(dict.fromkeys(changes))
        return _Rows(self, distinct, None if len(distinct) == 1 else [distinct.index(c) for c in changes])

    def step(self, z: Tensor, t: Tensor, kv: Tensor, mask: Tensor, rows: _Rows) -> Tensor:
        """x0 [R, D] float32 of z [R, D], t [R]; kv has STEP slots after the prefix's, which are written over."""
        import torch

        c, first = self.config, kv.shape[4] - STEP
        wave = _sinusoid(t, c.width)
        time = rows.linear("time2", torch.nn.functional.silu(rows.linear("time1", wave[:, None])))
        noisy = rows.linear("noisy", z[:, None].float())
        query = rows.vector("prd_embedding").expand(len(z), 1, -1)
        h = torch.cat([time, noisy, query], 1) + rows.vector("positional_embedding")[..., -STEP:, :]
        if "norm_in.weight" in self.vectors:
            h = rows.norm("norm_in", h)
        for i in range(c.layers):
            q, kv[i, 0, :, :, first:], kv[i, 1, :, :, first:] = rows.qkv(i, h)
            if i == c.layers - 1:  # the query's row alone is read
                h, q, mask = h[:, -1:], q[:, :, -1:], mask[..., -1:, :]
            h = rows.block(i, h, q, kv[i, 0], kv[i, 1], mask)
        return rows.linear("out", rows.norm("norm_out", h))[:, 0].float()


class _Rows:
    """The engine's layers for rows of which each has its own change, or none."""

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
        y = _attend(q, k, v, mask)
        h = h + self.linear(f"{i}.mix", y.transpose(1, 2).flatten(2))
        inside = self.linear(f"{i}.up", self.norm(f"transformer_blocks.{i}.norm3", h), gelu=True)
        return h + self.linear(f"{i}.down", inside)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of [R, heads, T, w] over [R, heads, S, w] with an additive mask, broadcast to [R, heads, T, S].

    Written out on a CPU, where the fused kernel takes up to four times as long for three queries
    (benchmarks/small_attention.py).
    """
    import torch

    if q.device.type != "cpu":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
    shape, scale = q.shape, q.shape[-1] ** -0.5
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = mask.to(q.dtype).expand(*shape[:3], k.shape[1]).flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).view(shape)


# --- small parts -----------------------------------------------------------------------------------------------------


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _or_zeros(weights: Mapping[str, Tensor], key: str, config: PriorConfig) -> Tensor:
    import torch

    if key in weights:
        return weights[key]
    return torch.zeros(config.shapes[key.removesuffix(".delta")])


def _low_rank(weights: Mapping[str, Tensor], stems: Sequence[str], width: int) -> tuple[Tensor, Tensor] | None:
    """The changes of stacked matrices as one: downs stacked [sum r, in], ups on a diagonal [sum out, sum r]."""
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


def causal(n: int, before: int, device: torch.device) -> Tensor:
    """Additive mask [n, before + n]: every one of n slots sees all before them, itself, and earlier ones."""
    import torch

    return torch.full((n, before + n), MASKED, device=device).triu_(before + 1)


# Sinusoidal embedding of the timestep, arXiv 1706.03762 section 3.5, cosines first.
def _sinusoid(t: Tensor, width: int) -> Tensor:
    """[R] => [R, width] float32."""
    import math

    import torch

    half = width // 2
    speed = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * speed
    return torch.cat([angle.cos(), angle.sin()], 1)
