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
    """Samples tokens [B, k, D] standardised, one CPU generator per item => un-normalised [B, D], float32 on the CPU.

    prior: a diffusers PriorTransformer, in whose type the network runs; the scheduler runs in float32. Both branches of
    guidance are one batch. only: runs just the first so many steps (for timing; the result is not a sample).
    """
    import torch
    from diffusers import UnCLIPScheduler

    device, dtype = prior.positional_embedding.device, prior.positional_embedding.dtype
    scheduler = UnCLIPScheduler(
        num_train_timesteps=1000, variance_type="fixed_small_log", clip_sample_range=5.0, prediction_type="sample"
    )
    scheduler.set_timesteps(steps, device=device)
    with torch.no_grad():
        slots, mask = padded(tokens.to(device, dtype), prior.config.num_embeddings)
        guided = guidance > 1
        if guided:
            slots, mask = torch.cat([torch.zeros_like(slots), slots]), mask.repeat(2, 1)
        text = torch.zeros(len(slots), prior.embedding_proj.in_features, device=device, dtype=dtype)
        z = randn_items(tokens.shape[2:], gens).to(device)
        times = scheduler.timesteps
        for i, t in enumerate(times[:only]):
            rows = z.repeat(2, 1) if guided else z
            x0 = prior(rows.to(dtype), t, text, slots, mask).predicted_image_embedding.float()
            if guided:
                uncond, cond = x0.chunk(2)
                x0 = uncond + guidance * (cond - uncond)
            after = times[i + 1] if i + 1 < steps else None
            z = scheduler.step(x0, t, z, prev_timestep=after, generator=list(gens)).prev_sample
        mean, std = prior.clip_mean.float(), prior.clip_std.float()
        result: Tensor = (z * std + mean).cpu()
        return result


def padded(tokens: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Pads tokens [B, k, D] with zeros to all slots, and returns the mask [B, slots] that is True for the k."""
    import torch
    from torch.nn.functional import pad

    n, k, _ = tokens.shape
    mask = torch.zeros(n, slots, dtype=torch.bool, device=tokens.device)
    mask[:, :k] = True
    return pad(tokens, (0, 0, 0, slots - k)), mask
