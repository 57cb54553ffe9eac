"""What a run trains: a copy of the base prior, whole or with an adapter. Also makes and saves base priors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pops.errors import CheckpointError, ensure
from pops.files import write_whole
from pops.operators.checkpoint import is_adapter
from pops.prior.condition import Condition
from pops.prior.noise import SchedulerConfig
from pops.prior.transformer import FROZEN, PriorModel, forward_slots
from pops.standardise import ClipStats
from pops.tensors import write_tensors
from pops.training.config import TrainConfig
from pops.training.data import seed_of


class LowRank(nn.Module):
    """A Linear whose weight W is fixed, plus a trained adapter: W x + b + up (down x), arXiv 2106.09685 Eq. 3."""

    def __init__(self, linear: nn.Linear, rank: int, gen: torch.Generator) -> None:
        super().__init__()
        out, into = linear.weight.shape
        self.weight = nn.Parameter(linear.weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(linear.bias.detach()) if linear.bias is not None else None
        self.down = nn.Parameter(torch.randn(rank, into, generator=gen) / into**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up)


class Trainable(nn.Module):
    """A float32 copy of the base prior as one module, trained whole or with an adapter in its blocks.

    start: the weights of an operator on this base to begin with, as its folder holds them.
    """

    def __init__(self, base: PriorModel, config: TrainConfig, start: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        copies = {name: value.detach().float().clone() for name, value in base.transformer.state_dict().items()}
        self.transformer = base.with_weights(copies).transformer
        for name, parameter in self.transformer.named_parameters():
            fixed = name in FROZEN or (config.rank and not config.adapt_time and name.startswith("time_embedding"))
            unused = config.operator != "prior" and name.startswith("embedding_proj.weight")
            later = config.blocks > 0 and not _before(name, config.blocks)
            parameter.requires_grad_(not (fixed or unused or later))
        gen = torch.Generator().manual_seed(seed_of(config.seed, "adapter", 0))
        if config.rank:
            for block in self.transformer.transformer_blocks[: config.blocks or None]:
                linears = [(name, m) for name, m in block.named_modules() if isinstance(m, nn.Linear)]
                for name, linear in linears:
                    parent, _, leaf = name.rpartition(".")
                    setattr(block.get_submodule(parent), leaf, LowRank(linear.cpu(), config.rank, gen))
        if start:
            self._begin_with(start)

    def forward(self, z: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicts: z [B, D] noisy, t [B], condition => x0 [B, D], all standardised."""
        return forward_slots(self.transformer, z, t, condition)

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the trained parameters by name."""
        return {name: p for name, p in self.transformer.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _begin_with(self, start: Mapping[str, Tensor]) -> None:
        """Sets the trained parameters to an operator's; factors of a lower rank fill the first rows and columns."""
        trained, whole = self.trained(), not is_adapter(start)
        told = "the operator to start from is a whole prior: set rank=0, or start from base"
        ensure(not whole or not any(name.endswith(".down") for name in trained), told, CheckpointError)
        for key, value in start.items():
            name, leaf = key, "value"
            if key.rpartition(".")[2] in ("down", "up", "delta"):
                name, _, leaf = key.rpartition(".")
            place = f"{name.removesuffix('.weight')}.{leaf}" if leaf in ("down", "up") else name
            parameter = trained.get(place)
            if parameter is None and whole:
                continue  # of a whole prior: what is not trained here
            fits = parameter is not None and all(a <= b for a, b in zip(value.shape, parameter.shape, strict=True))
            told = f"the operator to start from has {key} {tuple(value.shape)}, which this run does not train"
            ensure(
                fits, f"{told}; choose rank, blocks and adapt_time as it has them, or start from base", CheckpointError
            )
            assert parameter is not None
            if leaf == "delta":
                parameter.add_(value.float())
            else:
                parameter[tuple(slice(n) for n in value.shape)] = value.float()


def _before(name: str, blocks: int) -> bool:
    """Whether a parameter belongs to the first blocks, or to what lies before them."""
    parts = name.split(".")
    if parts[0] == "transformer_blocks":
        return int(parts[1]) < blocks
    return parts[0] not in ("norm_out", "proj_to_clip_embeddings")


def weights_of(values: Mapping[str, Tensor], base: PriorModel, config: TrainConfig) -> dict[str, Tensor]:
    """Converts trained values to the weights that an operator folder holds: an adapter, or all but the statistics."""
    own = {name: value.detach().cpu().float() for name, value in base.transformer.state_dict().items()}
    if not config.rank:
        return {name: values.get(name, value) for name, value in own.items() if name not in FROZEN}
    weights = {}
    for name, value in values.items():
        stem, _, leaf = name.rpartition(".")
        if leaf in ("down", "up"):
            weights[f"{stem}.weight.{leaf}"] = value
        else:
            weights[f"{name}.delta"] = value - own[name]
    return weights


def new_prior(
    stats: ClipStats,
    *,
    layers: int = 4,
    heads: int = 4,
    head_dim: int = 64,
    slots: int = 77,
    clip: float = 5.0,
    seed: int = 0,
) -> PriorModel:
    """Makes an untrained base prior of Kandinsky 2.2's form for a space of these statistics, heads * head_dim wide.

    clip: the sampler clamps its x0 predictions to +- this, in standardised units.
    """
    from diffusers import PriorTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer: Any = PriorTransformer(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            num_layers=layers,
            embedding_dim=int(stats.mean.shape[-1]),
            num_embeddings=slots,
        )
        with torch.no_grad():
            transformer.positional_embedding.normal_(std=0.02)
            transformer.prd_embedding.normal_(std=0.02)
            transformer.clip_mean.copy_(stats.mean)
            transformer.clip_std.copy_(stats.std)
    return PriorModel(transformer.eval(), scheduler=SchedulerConfig(clip=clip))


def save_prior(prior: PriorModel, folder: str | Path) -> None:
    """Writes `prior/` (float16) and `scheduler/` of a model folder, as stock diffusers reads them."""
    from diffusers import UnCLIPScheduler

    state = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in prior.transformer.state_dict().items()}
    steps, clip = prior.scheduler.train_steps, prior.scheduler.clip
    scheduler = UnCLIPScheduler(
        steps, prediction_type="sample", clip_sample=clip is not None, clip_sample_range=clip or 1.0
    )
    with write_whole(Path(folder) / "scheduler" / "scheduler_config.json") as temporary:
        temporary.write_text(scheduler.to_json_string(), encoding="utf-8")
    with write_whole(Path(folder) / "prior" / "diffusion_pytorch_model.safetensors") as temporary:
        write_tensors(temporary, state, {"format": "pt"})
    with write_whole(Path(folder) / "prior" / "config.json") as temporary:
        temporary.write_text(prior.transformer.to_json_string(), encoding="utf-8")
