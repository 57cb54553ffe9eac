"""Samplers of the prior: free functions from noise to an embedding, over one contract for denoisers.

A denoiser predicts the clean embedding; guidance is inside it, clamping is the sampler's. A sampler draws
from one generator an item, so that a batch equals its items sampled alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pops.errors import ConfigError, ensure
from pops.prior.noise import SchedulerConfig, alphas_cumprod, betas, timesteps
from pops.prior.transformer import Condition, PriorModel
from pops.seeds import randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Denoise = Callable[[Tensor, Tensor], Tensor]  # (z [B, D] standardised, t [B]) -> x0 [B, D] standardised
    OnStep = Callable[[int, int], None]  # (steps done, steps in all); what it raises ends the sampling


class Sampler(Protocol):
    """z [B, D] of unit noise, and B generators for what is drawn later => a sample [B, D], standardised."""

    def __call__(
        self,
        denoise: Denoise,
        z: Tensor,
        gens: Sequence[torch.Generator],
        *,
        steps: int,
        scheduler: SchedulerConfig,
        on_step: OnStep | None = None,
    ) -> Tensor: ...


# unCLIP's ancestral DDPM, arXiv 2006.11239 Eq. 7 over the timesteps that are visited, with their own betas.
def ancestral_coefficients(t: int, t_next: int | None, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one step t -> t_next (None: the end): the factors of x0 and z, and the noise's standard deviation.

    float32 scalars, as UnCLIPScheduler computes them: to the end, abar_next is 1, and beta is betas[t]
    where t_next is t - 1. From t = 0 the factor of x0 is therefore betas[0] / (1 - abar[0]) in float32,
    0.9994723 and not 1.
    """
    import torch

    abar, table, one = alphas_cumprod(n), betas(n), torch.tensor(1.0)
    a, a_next = abar[t], one if t_next is None else abar[t_next]
    beta = table[t] if t == (0 if t_next is None else t_next + 1) else 1 - a / a_next
    x0_factor = a_next.sqrt() * beta / (1 - a)
    z_factor = (1 - beta).sqrt() * (1 - a_next) / (1 - a)
    sigma = ((1 - a_next) / (1 - a) * beta).clamp(min=1e-20).log().mul(0.5).exp()
    return x0_factor, z_factor, sigma if t_next is not None else torch.tensor(0.0)


def sample_ancestral(
    denoise: Denoise,
    z: Tensor,
    gens: Sequence[torch.Generator],
    *,
    steps: int,
    scheduler: SchedulerConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """UnCLIPScheduler's loop: clamp the prediction, step, add noise (a draw an item and step, but the last).

    z [B, D] is the initial noise, drawn first from the same generators => [B, D] standardised.
    """
    ensure(len(gens) == len(z), f"{len(z)} items need as many generators, got {len(gens)}")
    path = timesteps(steps, scheduler.train_steps)
    for done, (t, t_next) in enumerate(zip(path, [*path[1:], None], strict=True), start=1):
        x0 = denoise(z, z.new_full((len(z),), t).long()).to(z.dtype)
        if scheduler.clip is not None:
            x0 = x0.clamp(-scheduler.clip, scheduler.clip)
        x0_factor, z_factor, sigma = ancestral_coefficients(t, t_next, scheduler.train_steps)
        z = x0_factor * x0 + z_factor * z
        if t_next is not None:
            z = z + sigma * randn_items(z.shape[1:], gens).to(z)
        if on_step is not None:
            on_step(done, steps)
    return z


SAMPLERS: dict[str, Sampler] = {"ancestral": sample_ancestral}


# Classifier-free guidance on the x0 prediction, arXiv 2207.12598 Eq. 6 with s = 1 + w: x = x_u + s (x_c -
# x_u).
def denoiser(
    prior: PriorModel,
    condition: Condition,
    *,
    unconditional: Condition | None = None,
    guidance: float = 1.0,
    full: bool = False,
) -> Denoise:
    """The prior's prediction under a condition, guided away from `unconditional` when guidance > 1.

    guidance <= 1 runs the conditional branch only. `full` takes the 81-slot forward, which gives the same
    numbers.
    """
    predict = prior.predict_x0 if full else prior.predict_slots
    if guidance <= 1:
        return lambda z, t: predict(z, t, condition).float()
    if unconditional is None:
        raise ConfigError("guidance above 1 needs the condition to guide away from; pass unconditional")
    both = Condition.cat([unconditional, condition])

    def guided(z: Tensor, t: Tensor) -> Tensor:
        uncond, cond = predict(z.repeat(2, 1), t.repeat(2), both).float().chunk(2)
        return uncond + guidance * (cond - uncond)

    return guided
