"""The prior transformer: noisy standardised embedding + condition -> prediction of the clean embedding.

`predict_x0` is the reference: diffusers' own forward over all 77 + 4 slots. `predict_slots` computes the same from the
slots in use alone; a test holds the two together. Knows nothing of operators or sampling.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops.errors import ModelError, ensure
from pops.files import read_json_object
from pops.prior.attention import MASKED, causal
from pops.prior.condition import Condition
from pops.prior.config import ADDED, PriorConfig
from pops.prior.linear import Precision, compute_dtype
from pops.prior.noise import SCHEDULER_FILE, SchedulerConfig
from pops.prior.tensors import Merged, Overlay, TensorFiles
from pops.weights import check_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pops.prior.adapter import Adapter
    from pops.prior.engine import Engine
    from pops.prior.samplers import Denoise
    from pops.standardise import ClipStats

logger = logging.getLogger("pops.prior")

FROZEN = ("clip_mean", "clip_std")  # statistics of the space: parameters by name, but never trained


class PriorModel:
    """A prior of the unCLIP form (causal, 77 + 4 slots, learned query), in the layout of diffusers' `PriorTransformer`.

    Reads no tensor before its first use: `engine` packs them for fast sampling, `transformer` is diffusers' own
    module for training and for the slow twin; both together hold two copies. One instance may serve many threads.
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
        """Wraps a live PriorTransformer, or tensors and diffusers' config (`settings`).

        precision: of the engine, None for float32 (or that of a live transformer); adapter: the base prior whose engine
        this model shares, and the adapter on it that gives `tensors`.
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
        source: str | Path | nn.Module,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        precision: Precision | None = None,
    ) -> PriorModel:
        """Loads a model's folder (`prior/`, `scheduler/`), a prior's own, or a diffusers `PriorTransformer`.

        precision: "float32", "bfloat16", "float16", or on a CPU "int8"; None: that of dtype, else float32.
        The scheduler's config is read from `scheduler/` beside the prior's folder. Raises as `load_parts`.
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
        return cls.load_parts(folder, folder.parent / "scheduler", device=device, precision=precision)

    @classmethod
    def load_parts(
        cls,
        prior: Path,
        scheduler: Path | None,
        *,
        device: str | torch.device = "cpu",
        precision: Precision | None = None,
    ) -> PriorModel:
        """Loads a prior and its scheduler's config from a folder each; without the config, Kandinsky 2.2's.

        Raises ModelError if `prior` holds no readable prior, CheckpointError if its tensors are not exactly the
        prior's.
        """
        config = prior / "config.json"
        ensure(config.is_file(), f"no prior in {prior}: config.json is missing", ModelError)
        settings = read_json_object(config, ModelError, "fetch or export it again")
        shapes = PriorConfig.of(settings, str(prior)).shapes
        tensors = TensorFiles.of_folder(prior)
        check_shapes(shapes, tensors.shapes, f"the weights in {prior} do not fit", ignored=("causal_attention_mask",))
        own = scheduler if scheduler and (scheduler / SCHEDULER_FILE).is_file() else None
        logger.debug("prior in %s, scheduler's config in %s", prior, own)
        noise = SchedulerConfig.load(own) if own else None
        return cls(scheduler=noise, tensors=tensors, settings=settings, precision=precision, device=device)

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
        """Device on which the prior computes."""
        live = self._transformer
        return self._device if live is None else live.positional_embedding.device

    @property
    def precision(self) -> Precision:
        """Precision of the engine."""
        if self._precision is None and self._transformer is not None:
            return cast("Precision", str(self._transformer.positional_embedding.dtype).removeprefix("torch."))
        return self._precision or "float32"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the transformer's weights."""
        return compute_dtype(self.precision)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter by name, as stored; each is read when it is asked for."""
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
        """The weights packed for sampling, on first use; with an adapter, the base's engine.

        Weights changed after that have no effect on it.
        """
        if self._adapter is not None:
            return self._adapter[0].engine
        from pops.prior.engine import Engine

        with self._lock:
            if self._engine is None:
                begun = time.perf_counter()
                self._engine = Engine(self.config, self.tensors, precision=self.precision, device=self.device)
                seconds = time.perf_counter() - begun
                logger.info("packed the prior as %s on %s in %.1f s", self.precision, self.device, seconds)
            return self._engine

    @cached_property
    def adapter(self) -> Adapter | None:
        """What this model adds to the weights of its engine."""
        return None if self._adapter is None else self.engine.adapter(self._adapter[1])

    @cached_property
    def stats(self) -> ClipStats:
        """Mean and std [D] that standardise the space, float32 on the CPU."""
        from pops.standardise import ClipStats

        mean, std = (self.tensors[n].detach().float().cpu().reshape(-1).clone() for n in FROZEN)
        return ClipStats(mean, std)

    @property
    def fingerprint(self) -> str:
        """Name of these weights: sha256 of names, shapes and evenly spaced values, as float16; 16 hex digits."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.tensors)
        return self._fingerprint

    def with_weights(self, state: Mapping[str, Tensor]) -> PriorModel:
        """Returns a second model with the tensors of `state`, read on use, and this model's where it has none."""
        model = PriorModel(
            scheduler=self.scheduler,
            tensors=Overlay(state, self.tensors),
            settings=self.settings,
            precision=self.precision,
            device=self.device,
        )
        if not any(name in state for name in FROZEN):
            model.stats = self.stats  # a cached property: in the precision in which this model read them
        return model

    def with_adapter(self, weights: Mapping[str, Tensor]) -> PriorModel:
        """Returns a second model: parameter P plus "P.up" @ "P.down", or plus "P.delta". Both share one engine."""
        model = PriorModel(
            scheduler=self.scheduler,
            tensors=Overlay(Merged(self.tensors, weights), self.tensors),
            settings=self.settings,
            precision=self.precision,
            device=self.device,
            adapter=(self, weights) if self._adapter is None else None,  # an engine runs one adapter a row
        )
        model.stats = self.stats
        return model

    # -- prediction --------------------------------------------------------------------------------

    def predict_x0(self, z: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """Computes all 81 slots, as diffusers does: z [B, D] noisy, t [B] integer, tokens [B, k, D] => x0 [B, D].

        Unused slots up to 77 are zero vectors and masked; the text's slot holds zeros unless the condition has a text.
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
        """Computes `predict_x0` without the padding: k + 4 slots. Exact, since no masked slot reaches the query."""
        return forward_slots(self.transformer, z, t, self._checked(condition))

    def _checked(self, condition: Tensor | Condition) -> Condition:
        c = condition if isinstance(condition, Condition) else Condition(condition)
        k, d = c.tokens.shape[1:]
        told = f"condition tokens are {d} wide, this prior takes {self.dim}; use embeddings of this model's space"
        ensure(d == self.dim, told, ModelError)
        ensure(k <= self.slots, f"{k} condition tokens, but this prior has {self.slots} slots", ModelError)
        return c


def forward_slots(model: Any, z: Tensor, t: Tensor, c: Condition) -> Tensor:
    """Computes x0 [B, D] from the slots in use alone. model: a PriorTransformer, in training with Linears replaced.

    z [B, D], t [B] integer, c of B rows. The last block computes the query's row alone, for nothing else is read.
    """
    import torch

    position = model.positional_embedding
    dtype, n = position.dtype, len(z)
    k, first_added = c.tokens.shape[1], model.config.num_embeddings
    z = z.to(dtype)

    # 1) The slots: k condition tokens, then text embedding, time, noisy embedding and query, at their own positions.
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

    # 3) The blocks, and the prediction from the query's row.
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
    """Returns the engine's slow twin: all 81 slots of every row, in every step; guidance <= 1 runs cond alone."""
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
    """Attends over [B, heads, slots, width] with an additive mask.

    Written out for bfloat16 on a CPU: the fused kernel takes 63 ms backward, this 8 (256 items of 16 slots).
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
    """Returns what stands in the text embedding's slot, before its projection: [rows, E]; zeros for an operator."""
    position = model.positional_embedding
    if c.proj is not None:
        return c.proj.to(position.dtype)
    zeros: Tensor = position.new_zeros(rows, model.embedding_proj.weight.shape[1])
    return zeros


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Returns the name of weights: 16 hex digits (see PriorModel.fingerprint)."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().reshape(-1)
        sample = value[:: max(1, value.numel() // 4096)].to(device="cpu", dtype=torch.float16)
        digest.update(json.dumps([name, list(state[name].shape)]).encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]
