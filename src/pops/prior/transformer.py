"""The prior transformer: noisy standardised embedding + condition -> prediction of the clean embedding.

`predict_x0` is the reference: diffusers' own forward over all 77 + 4 slots. `predict_slots` is the same
mathematics on the slots in use; a test holds the two together. Knows nothing of operators, guidance or
sampling.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops.errors import ModelError, ensure
from pops.prior.attention import MASKED, causal
from pops.prior.condition import Condition
from pops.prior.config import ADDED, PriorConfig
from pops.prior.linear import Precision, compute_dtype
from pops.prior.noise import SCHEDULER_FILE, SchedulerConfig
from pops.prior.tensors import Laid, Merged, TensorFiles
from pops.weights import check_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pops.prior.adapter import Change
    from pops.prior.engine import Engine
    from pops.prior.samplers import Denoise
    from pops.standardise import ClipStats

FROZEN = ("clip_mean", "clip_std")  # statistics of the space: parameters by name, but never trained


class PriorModel:
    """A prior of the unCLIP form (causal, 77 + 4 slots, learned query), in diffusers' `PriorTransformer` layout.

    Reads nothing before it is used: `engine` packs the tensors for fast sampling, `transformer` is diffusers' own
    module for training and for the slow twin; who uses both holds two copies. One instance may serve many threads.
    """

    def __init__(
        self,
        transformer: Any = None,
        *,
        scheduler: SchedulerConfig | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, Any] | None = None,
        precision: Precision | None = None,
        device: str | torch.device = "cpu",
        adapter: tuple[PriorModel, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """From a live PriorTransformer, or from tensors and diffusers' config (`settings`).

        precision: of the engine, None for float32 (or that of a live transformer); adapter: the base prior whose engine
        this model shares, and the changes of it that make `tensors`.
        """
        import torch

        self.settings: Mapping[str, Any] = dict(transformer.config if settings is None else settings)
        self.config = PriorConfig.of(self.settings)
        self.scheduler = scheduler or SchedulerConfig()
        self._transformer, self._tensors, self._adapter = transformer, tensors, adapter
        self._precision, self._device = precision, torch.device(device)
        self._fingerprint: str | None = None
        self._engine: Engine | None = None
        self._lock = threading.RLock()
        if transformer is not None:
            for name in FROZEN:
                getattr(transformer, name).requires_grad_(False)

    @classmethod
    def load(
        cls,
        source: Any,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        precision: Precision | None = None,
    ) -> PriorModel:
        """From a model's folder (`prior/`, `scheduler/`), a prior's own, or a diffusers `PriorTransformer`.

        precision: "float32", "bfloat16", "float16", or on a CPU "int8"; None: that of dtype, else float32.
        The scheduler's config is read from `scheduler/` beside the prior's folder, if there; else it is
        Kandinsky 2.2's. Raises ModelError when the folder holds no readable prior, CheckpointError when its
        tensors are not exactly the prior's. The statistics keep the precision they are stored in.
        """
        from torch.nn import Module

        if precision is None and dtype is not None:
            precision = cast("Precision", str(dtype).removeprefix("torch."))
        if not isinstance(source, (str, Path)):
            model = cls(source, precision=precision, device=device)
            _ = model.stats  # cached here, before the cast
            Module.to(source, device=device, dtype=dtype)
            return model
        folder = Path(source)
        folder = folder / "prior" if (folder / "prior" / "config.json").is_file() else folder
        config = folder / "config.json"
        ensure(config.is_file(), f"no prior in {folder}: config.json is missing", ModelError)
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
            shapes = PriorConfig.of(settings, str(folder)).shapes
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"the prior in {folder} cannot be read ({error}); fetch or export it again") from error
        tensors = TensorFiles.of_folder(folder)
        claim = f"the weights in {folder} do not fit"
        check_shapes(shapes, tensors.shapes, claim, ignored=("causal_attention_mask",))
        beside = folder.parent / "scheduler"
        scheduler = SchedulerConfig.load(beside) if (beside / SCHEDULER_FILE).is_file() else None
        return cls(scheduler=scheduler, tensors=tensors, settings=settings, precision=precision, device=device)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Width D of the CLIP space."""
        return self.config.dim

    @property
    def slots(self) -> int:
        """Condition slots (77); four more follow: text embedding, time, noisy embedding, query."""
        return self.config.slots

    @property
    def device(self) -> torch.device:
        live = self._transformer
        return self._device if live is None else live.positional_embedding.device

    @property
    def precision(self) -> Precision:
        """Of the engine."""
        if self._precision is None and self._transformer is not None:
            return cast("Precision", str(self._transformer.positional_embedding.dtype).removeprefix("torch."))
        return self._precision or "float32"

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer's weights."""
        return compute_dtype(self.precision)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter by name, as stored; read when asked for."""
        return self._transformer.state_dict() if self._tensors is None else self._tensors

    @property
    def transformer(self) -> Any:
        """The diffusers module, built on first use, without gradients."""
        with self._lock:
            if self._transformer is None:
                import torch
                from diffusers import PriorTransformer

                with torch.device("meta"):
                    module = PriorTransformer.from_config(dict(self.settings))
                state = {name: self.tensors[name].to(self._device, self.dtype) for name in self.config.shapes}
                module.load_state_dict(state, strict=True, assign=True)
                n = self.slots + ADDED
                module.causal_attention_mask = causal(n, 0, self._device)[None].to(self.dtype)
                self._transformer = module.requires_grad_(False).eval()
            return self._transformer

    @property
    def engine(self) -> Engine:
        """The weights packed for sampling, on first use; an adapter's is its base's. Later changes are not seen."""
        if self._adapter is not None:
            return self._adapter[0].engine
        from pops.prior.engine import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self.config, self.tensors, precision=self.precision, device=self.device)
            return self._engine

    @cached_property
    def change(self) -> Change | None:
        """What this model adds to the weights of its engine."""
        return None if self._adapter is None else self.engine.change(self._adapter[1])

    @cached_property
    def stats(self) -> ClipStats:
        """Mean and std [D] that standardise the space, float32 on the CPU."""
        from pops.standardise import ClipStats

        mean, std = (self.tensors[n].detach().float().cpu().reshape(-1).clone() for n in FROZEN)
        return ClipStats(mean, std)

    @property
    def fingerprint(self) -> str:
        """Name of these weights: sha256 over names, shapes and an even sample of the values, as float16."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self.tensors)
        return self._fingerprint

    def with_weights(self, state: Mapping[str, Tensor]) -> PriorModel:
        """A second model with the weights of `state`, read on use; names it lacks are this model's own tensors."""
        model = PriorModel(
            scheduler=self.scheduler,
            tensors=Laid(state, self.tensors),
            settings=self.settings,
            precision=self.precision,
            device=self.device,
        )
        if not any(name in state for name in FROZEN):
            model.stats = self.stats  # a cached property: in the precision in which this model read them
        return model

    def with_adapter(self, weights: Mapping[str, Tensor]) -> PriorModel:
        """A second model: this one plus "P.up" @ "P.down" or "P.delta" for parameters P. They share one engine."""
        model = PriorModel(
            scheduler=self.scheduler,
            tensors=Laid(Merged(self.tensors, weights), self.tensors),
            settings=self.settings,
            precision=self.precision,
            device=self.device,
            adapter=(self, weights) if self._adapter is None else None,  # one change at most beside an engine
        )
        model.stats = self.stats
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


# Classifier-free guidance on the x0 prediction, arXiv 2207.12598 Eq. 6 with s = 1 + w: x = x_u + s (x_c - x_u).
def plain_denoiser(
    prior: PriorModel, condition: Condition, *, unconditional: Condition, guidance: float = 1.0
) -> Denoise:
    """The engine's slow twin: all 81 slots of every row, every step; guidance <= 1 runs the conditional branch only."""
    if guidance <= 1:
        return lambda z, t: prior.predict_x0(z, t, condition).float()
    both = Condition.cat([unconditional, condition])

    def guided(z: Tensor, t: Tensor) -> Tensor:
        uncond, cond = prior.predict_x0(z.repeat(2, 1), t.repeat(2), both).float().chunk(2)
        return uncond + guidance * (cond - uncond)

    return guided


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
