"""The prior transformer: noisy standardised embedding + condition -> prediction of the clean embedding.

`predict_x0` is the reference: diffusers' own forward over all 77 + 4 slots. `predict_slots` is the same
mathematics on the slots in use; a test holds the two together. Knows nothing of operators, guidance or
sampling.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import CheckpointError, ModelError, ensure
from pops.prior.noise import SCHEDULER_FILE, SchedulerConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pops.stats import ClipStats

FROZEN = ("clip_mean", "clip_std")  # statistics of the space: parameters by name, but never trained
MASKED = -10000.0  # added to a logit; exp of it is exactly 0 in float32


@dataclass(frozen=True, eq=False)
class Condition:
    """What a prior is conditioned on, one row an item.

    tokens [B, k, D]: operand i's standardised embedding in slot i, or rows of the text's last hidden state;
    keep   [B, k] bool, False where a row is padding (masked out); None keeps all;
    proj   [B, D]: the text's embedding (the base prior); None feeds zeros (every operator).
    """

    tokens: Tensor
    keep: Tensor | None = None
    proj: Tensor | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def to(self, device: torch.device | str) -> Condition:
        """The same on another device."""
        keep, proj = (None if x is None else x.to(device, non_blocking=True) for x in (self.keep, self.proj))
        return Condition(self.tokens.to(device, non_blocking=True), keep, proj)

    def __getitem__(self, rows: slice) -> Condition:
        keep, proj = (None if x is None else x[rows] for x in (self.keep, self.proj))
        return Condition(self.tokens[rows], keep, proj)

    def zeros(self) -> Condition:
        """The guidance branch of an operator: zero tokens in as many slots, unmasked, and no text."""
        return Condition(self.tokens.new_zeros(self.tokens.shape), self.keep, None)

    def expand(self, n: int) -> Condition:
        """The one row of this condition, `n` times."""
        ensure(len(self) == 1, f"only a single condition can be repeated, this one has {len(self)} rows")
        keep = None if self.keep is None else self.keep.expand(n, -1)
        proj = None if self.proj is None else self.proj.expand(n, -1)
        return Condition(self.tokens.expand(n, -1, -1), keep, proj)

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """The rows of all parts; shorter ones are padded with masked zero slots, absent `proj` is zeros."""
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
        return Condition(
            torch.cat(tokens), torch.cat(keeps) if ragged else None, torch.cat(projs) if has_proj else None
        )


class PriorModel:
    """A diffusers `PriorTransformer` of the unCLIP form (causal, 77 + 4 slots, learned query)."""

    def __init__(self, transformer: Any, *, scheduler: SchedulerConfig | None = None) -> None:
        c = transformer.config
        ensure(
            c.added_emb_type == "prd" and c.encoder_hid_proj_type == "linear" and c.additional_embeddings == 4,
            "this prior is not of the unCLIP form (learned query, linear condition tokens, 4 added slots); "
            "use a prior of Kandinsky 2.2's layout",
            ModelError,
        )
        self.transformer = transformer
        self.scheduler = scheduler or SchedulerConfig()
        for name in FROZEN:
            getattr(transformer, name).requires_grad_(False)
        self._fingerprint: str | None = None

    @classmethod
    def load(cls, source: Any, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> PriorModel:
        """From a model's folder (`prior/`, `scheduler/`), a prior's own, or a diffusers `PriorTransformer`.

        The scheduler's config is read from `scheduler/` beside the prior's folder, if there; else it is
        Kandinsky 2.2's. Raises ModelError when the folder holds no readable prior, CheckpointError when its
        tensors are not exactly the prior's. The statistics keep the precision they are stored in.
        """
        from torch.nn import Module

        if not isinstance(source, (str, Path)):
            model = cls(source)
            _ = model.stats  # cached here, before the cast
            Module.to(source, device=device, dtype=dtype)
            return model
        from diffusers import PriorTransformer

        folder = Path(source)
        folder = folder / "prior" if (folder / "prior" / "config.json").is_file() else folder
        ensure((folder / "config.json").is_file(), f"no prior in {folder}: config.json is missing", ModelError)
        try:
            transformer, info = PriorTransformer.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"the prior in {folder} cannot be read ({first}); fetch or export it again") from error
        for what in ("missing_keys", "unexpected_keys"):
            names = sorted(set(info[what]) - {"causal_attention_mask"})
            told = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            wrong = f"{folder}: {what.replace('_', ' ')} {told}; fetch or export the prior again"
            ensure(not names, wrong, CheckpointError)
        beside = folder.parent / "scheduler"
        scheduler = SchedulerConfig.load(beside) if (beside / SCHEDULER_FILE).is_file() else None
        model = cls(transformer.eval(), scheduler=scheduler)
        model._fingerprint = model.fingerprint  # of the stored weights, before any cast,
        _ = model.stats  # and so the statistics, cached here
        Module.to(transformer, device=device, dtype=dtype)
        return model

    # -- what it is --------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Width D of the CLIP space."""
        return int(self.transformer.config.embedding_dim)

    @property
    def slots(self) -> int:
        """Condition slots (77); four more follow: text embedding, time, noisy embedding, query."""
        return int(self.transformer.config.num_embeddings)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.transformer.positional_embedding.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.transformer.positional_embedding.dtype
        return dtype

    @cached_property
    def stats(self) -> ClipStats:
        """Mean and std [D] that standardise the space, float32 on the CPU."""
        from pops.stats import ClipStats

        mean, std = (getattr(self.transformer, n).detach().float().cpu().reshape(-1).clone() for n in FROZEN)
        return ClipStats(mean, std)

    @property
    def fingerprint(self) -> str:
        """Name of these weights: sha256 over names, shapes and an even sample of the values, as float16."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self.transformer.state_dict())
        return self._fingerprint

    def with_weights(self, state: Mapping[str, Tensor]) -> PriorModel:
        """A second model with the weights of `state`; names it lacks share this model's own tensors."""
        import torch

        weights = {**self.transformer.state_dict(), **state}
        with torch.device("meta"):
            other = type(self.transformer).from_config(self.transformer.config)
        other.load_state_dict(weights, strict=True, assign=True)
        other.causal_attention_mask = self.transformer.causal_attention_mask
        model = PriorModel(other.requires_grad_(False).eval(), scheduler=self.scheduler)
        if not any(name in state for name in FROZEN):
            model.stats = self.stats  # a cached property: in the precision in which this model read them
        return model

    # -- prediction --------------------------------------------------------------------------------

    def predict_x0(self, z: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """All 81 slots, the public way: z [B, D] noisy, t [B] integer, tokens [B, k, D] => x0 [B, D].

        Unused slots up to 77 are zero vectors and masked out, the text slot is fed with zeros unless the
        condition has a text.
        """
        import torch
        from torch.nn import functional as F

        c = self._checked(condition)
        pad = self.slots - c.tokens.shape[1]
        keep = c.tokens.new_ones(c.tokens.shape[:2], dtype=torch.bool) if c.keep is None else c.keep
        out: Tensor = self.transformer(
            z.to(self.dtype),
            timestep=t,
            proj_embedding=_proj(self.transformer, c, len(z)),
            encoder_hidden_states=F.pad(c.tokens, (0, 0, 0, pad)).to(self.dtype),
            attention_mask=F.pad(keep, (0, pad), value=False),
        ).predicted_image_embedding
        return out

    def predict_slots(self, z: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """`predict_x0` without the padding: k + 4 slots. Exact: a masked slot can never reach the query."""
        return forward_slots(self.transformer, z, t, self._checked(condition))

    def _checked(self, condition: Tensor | Condition) -> Condition:
        c = condition if isinstance(condition, Condition) else Condition(condition)
        k, d = c.tokens.shape[1:]
        ensure(d == self.dim, f"condition tokens are {d} wide, this prior takes {self.dim}", ModelError)
        ensure(k <= self.slots, f"{k} condition tokens, but this prior has {self.slots} slots", ModelError)
        return c


def forward_slots(model: Any, z: Tensor, t: Tensor, c: Condition) -> Tensor:
    """x0 [B, D] from the slots in use only; `model`: a PriorTransformer, in training with Linears replaced.

    z [B, D], t [B] integer, c of B rows. The last block computes the query's row alone, all that is read.
    """
    import torch

    position = model.positional_embedding
    dtype, n = position.dtype, len(z)
    k, first_added = c.tokens.shape[1], model.config.num_embeddings
    z = z.to(dtype)

    # 1) The slots: k condition tokens, then text embedding, time, noisy embedding and query, at their own
    # positions.
    proj = model.embedding_proj(_norm(model.embedding_proj_norm, _proj(model, c, n if c.proj is not None else 1)))
    time = model.time_embedding(model.time_proj(t).to(dtype))
    added = [proj.expand(n, -1), time, model.proj_in(z), model.prd_embedding[:, 0].expand(n, -1)]
    tokens = model.encoder_hidden_states_proj(c.tokens.to(dtype))
    h = torch.cat([tokens, torch.stack([a.to(tokens.dtype) for a in added], dim=1)], dim=1)
    h = h + torch.cat([position[:, :k], position[:, first_added:]], dim=1)

    # 2) Each slot sees itself and those before it, except masked ones.
    mask = model.causal_attention_mask[:, None, : k + 4, : k + 4].to(h.dtype)
    if c.keep is not None:
        masked = torch.nn.functional.pad(~c.keep, (0, 4), value=False)
        mask = mask + masked[:, None, None, :] * MASKED

    # 3) The blocks, and the query's answer.
    h = _norm(model.norm_in, h)
    blocks = model.transformer_blocks
    for i, block in enumerate(blocks):
        h = _block(block, h, mask.to(h.dtype), query_only=i == len(blocks) - 1)
    x0: Tensor = model.proj_to_clip_embeddings(model.norm_out(h[:, -1]))
    return x0


def _block(block: Any, h: Tensor, mask: Tensor, *, query_only: bool) -> Tensor:
    attn, x = block.attn1, block.norm1(h)
    if query_only:
        h, mask = h[:, -1:], mask[..., -1:, :]
    heads = (len(x), -1, attn.heads, h.shape[-1] // attn.heads)
    q = attn.to_q(x[:, -1:] if query_only else x).view(heads).transpose(1, 2)
    k, v = (layer(x).view(heads).transpose(1, 2) for layer in (attn.to_k, attn.to_v))
    y = _attend(q, k, v, mask.to(q.dtype))
    h = attn.to_out[0](y.transpose(1, 2).flatten(2)) + h
    out: Tensor = block.ff(block.norm3(h)) + h
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention over [B, heads, slots, width] with an additive mask.

    Written out for bfloat16 on a CPU: the fused kernel took 63 ms backward, this 8 (256 items of 16 slots).
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + mask
        mixed: Tensor = scores.softmax(dim=-1).to(v.dtype) @ v
        return mixed
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _norm(layer: nn.Module | None, h: Tensor) -> Tensor:
    out: Tensor = h if layer is None else layer(h)
    return out


def _proj(model: Any, c: Condition, rows: int) -> Tensor:
    """The text embedding's slot, before its projection: [rows, E]; zeros for an operator."""
    position = model.positional_embedding
    if c.proj is not None:
        return c.proj.to(position.dtype)
    zeros: Tensor = position.new_zeros(rows, model.embedding_proj.weight.shape[1])
    return zeros


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().reshape(-1)
        sample = value[:: max(1, value.numel() // 4096)].to(device="cpu", dtype=torch.float16)
        digest.update(json.dumps([name, list(state[name].shape)]).encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]
