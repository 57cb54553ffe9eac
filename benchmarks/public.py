"""The public way of sampling an operator, written out: diffusers' own prior and scheduler, all 81 slots every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pops.seeds import randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def sample(
    prior: Any,
    tokens: Tensor,
    gens: Sequence[torch.Generator],
    *,
    guidance: float,
    steps: int,
    only: int | None = None,
) -> Tensor:
    """tokens [B, k, D] standardised, one CPU generator an item => un-normalised [B, D], float32 on the CPU.

    prior: a diffusers PriorTransformer, in whose type the network runs; the scheduler runs in float32. Both rows of
    guidance are one batch. only: the first so many of the steps, whose result means nothing.
    """
    import torch
    from diffusers import UnCLIPScheduler

    device, dtype = prior.positional_embedding.device, prior.positional_embedding.dtype
    scheduler = UnCLIPScheduler(
        num_train_timesteps=1000, variance_type="fixed_small_log", clip_sample_range=5.0, prediction_type="sample"
    )
    scheduler.set_timesteps(steps, device=device)
    with torch.no_grad():
        hidden, mask = padded(tokens.to(device, dtype), prior.config.num_embeddings)
        guided = guidance > 1
        if guided:
            hidden, mask = torch.cat([torch.zeros_like(hidden), hidden]), mask.repeat(2, 1)
        text = torch.zeros(len(hidden), prior.embedding_proj.in_features, device=device, dtype=dtype)
        z = randn_items(tokens.shape[2:], gens).to(device)
        times = scheduler.timesteps
        for i, t in enumerate(times[:only]):
            rows = z.repeat(2, 1) if guided else z
            x0 = prior(rows.to(dtype), t, text, hidden, mask).predicted_image_embedding.float()
            if guided:
                away, towards = x0.chunk(2)
                x0 = away + guidance * (towards - away)
            after = times[i + 1] if i + 1 < steps else None
            z = scheduler.step(x0, t, z, prev_timestep=after, generator=list(gens)).prev_sample
        mean, std = prior.clip_mean.float(), prior.clip_std.float()
        result: Tensor = (z * std + mean).cpu()
        return result


def padded(tokens: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, k, D] with zeros behind them up to all slots, and the mask [B, slots] that is True for the k."""
    import torch
    from torch.nn.functional import pad

    n, k, _ = tokens.shape
    mask = torch.zeros(n, slots, dtype=torch.bool, device=tokens.device)
    mask[:, :k] = True
    return pad(tokens, (0, 0, 0, slots - k)), mask
