"""Samplers of the prior: from noise to an embedding, over one contract for denoisers.

A denoiser predicts the clean embedding; guidance is inside it, clamping is the sampler's. A sampler draws
from one generator an item, so that a batch equals its items sampled alone, and keeps nothing between calls, so that
threads may share it. What the samplers are and which to take: docs/samplers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from pops.errors import ensure, suggest
from pops.prior import solvers
from pops.prior.noise import SchedulerConfig, timesteps
from pops.prior.solvers import Solver, Step
from pops.seeds import randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Denoise = Callable[[Tensor, Tensor], Tensor]  # (z [B, D] standardised, t [B]) -> x0 [B, D] standardised
    OnStep = Callable[[int, int], None]  # (steps done, steps in all); what it raises ends the sampling
    Path = Callable[[int, int], list[int]]  # (steps, training steps) -> the timesteps visited, descending

AHEAD = 64  # steps whose noise is moved to an accelerator at once: all of them, in ordinary requests


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


def sampler(path: Path, solver: Solver) -> Sampler:
    """The sampler that visits the timesteps of `path` with the steps of `solver`."""

    @lru_cache(maxsize=64)
    def plan(steps: int, n: int) -> tuple[Step, ...]:
        return tuple(solver(path(steps, n), n))

    def sample(
        denoise: Denoise,
        z: Tensor,
        gens: Sequence[torch.Generator],
        *,
        steps: int,
        scheduler: SchedulerConfig,
        on_step: OnStep | None = None,
    ) -> Tensor:
        return follow(plan(steps, scheduler.train_steps), denoise, z, gens, clip=scheduler.clip, on_step=on_step)

    return sample


def follow(
    plan: Sequence[Step],
    denoise: Denoise,
    z: Tensor,
    gens: Sequence[torch.Generator],
    *,
    clip: float | None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The one loop: predict, clamp, and add up what the step says; a draw an item where it wants noise.

    z [B, D] is the initial noise, drawn first from the same generators => [B, D] standardised. Nothing in it waits for
    an accelerator: the factors are the host's, and noise is drawn ahead.
    """
    import torch

    ensure(len(gens) == len(z), f"{len(z)} items need as many generators, got {len(gens)}")
    kept = max(len(step.x0_factors) for step in plan)
    noises = draws(gens, z, sum(step.noise > 0 for step in plan), ahead=1 if z.device.type == "cpu" else AHEAD)
    x0s: list[Tensor] = []  # the predictions, newest first
    for done, step in enumerate(plan, start=1):
        x0 = denoise(z, torch.full((len(z),), step.t, device=z.device)).to(z.dtype)
        x0s = [x0 if clip is None else x0.clamp(-clip, clip), *x0s][:kept]
        z = step.z_factor * z
        for factor, x0 in zip(step.x0_factors, x0s):
            z = z + factor * x0
        if step.noise > 0:
            z = z + step.noise * next(noises)
        if on_step is not None:
            on_step(done, len(plan))
    return z


def draws(gens: Sequence[torch.Generator], z: Tensor, count: int, *, ahead: int) -> Iterator[Tensor]:
    """`count` times unit noise like z [B, D], row i from the generator of item i; the same whatever `ahead`.

    So many are drawn and moved together, from pinned memory, without waiting for the device.
    """
    import torch

    for start in range(0, count, ahead):
        some = torch.stack([randn_items(z.shape[1:], gens) for _ in range(min(ahead, count - start))])
        some = some.pin_memory() if z.device.type == "cuda" else some
        yield from some.to(z.device, non_blocking=True).to(z.dtype)


sample_ancestral = sampler(timesteps, solvers.ancestral)
sample_ddim = sampler(solvers.trailing, solvers.ddim)
sample_dpmpp_2m = sampler(solvers.trailing, solvers.dpmpp_2m)
sample_dpmpp_2m_sde = sampler(solvers.trailing, solvers.dpmpp_2m_sde)

SAMPLERS: dict[str, Sampler] = {
    "ancestral": sample_ancestral,
    "ddim": sample_ddim,
    "dpm++2m": sample_dpmpp_2m,
    "dpm++2m-sde": sample_dpmpp_2m_sde,
}


def check_sampler(name: str) -> None:
    """ConfigError unless there is such a sampler."""
    hint = suggest(str(name), SAMPLERS)
    ensure(name in SAMPLERS, f"no sampler {name!r}{hint}; there is {', '.join(SAMPLERS)}")
