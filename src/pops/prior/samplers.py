"""Samplers of the prior: from noise to an embedding, over one contract for denoisers.

A denoiser predicts the clean embedding, guidance included; clamping is the sampler's. A sampler draws from one
generator per item, so that a batch equals its items sampled alone (to rounding), and keeps no state between calls, so
that threads may share it. The samplers, and which to choose: docs/samplers.md.
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

    from pops.progress import OnStep

    Denoise = Callable[[Tensor, Tensor], Tensor]  # (z [B, D] standardised, t [B]) -> x0 [B, D] standardised
    Path = Callable[[int, int], list[int]]  # (steps, training steps) -> the timesteps visited, descending

AHEAD = 64  # steps whose noise is moved to an accelerator at once: in ordinary requests, all of them


class Sampler(Protocol):
    """Turns z [B, D] of unit noise, and B generators for what is drawn later, into a sample [B, D], standardised."""

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
    """Returns the sampler that visits the timesteps of `path` with the steps of `solver`."""

    @lru_cache(maxsize=64)
    def table(steps: int, n: int) -> tuple[Step, ...]:
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
        return follow(table(steps, scheduler.train_steps), denoise, z, gens, clip=scheduler.clip, on_step=on_step)

    return sample


def follow(
    table: Sequence[Step],
    denoise: Denoise,
    z: Tensor,
    gens: Sequence[torch.Generator],
    *,
    clip: float | None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Runs the steps, the one loop of all samplers: predict, clamp, combine by the step's factors, add noise.

    z [B, D]: the initial noise, drawn before from the same generators => [B, D] standardised. Never waits for an
    accelerator: the factors are numbers on the host, and noise is drawn ahead.
    """
    import torch

    ensure(len(gens) == len(z), f"{len(z)} items need as many generators, got {len(gens)}")
    order = max(len(step.x0_factors) for step in table)
    noises = draws(gens, z, sum(step.noise > 0 for step in table), ahead=1 if z.device.type == "cpu" else AHEAD)
    x0s: list[Tensor] = []  # the last `order` predictions, newest first
    for done, step in enumerate(table, start=1):
        x0 = denoise(z, torch.full((len(z),), step.t, device=z.device)).to(z.dtype)
        x0s = [x0 if clip is None else x0.clamp(-clip, clip), *x0s][:order]
        z = step.z_factor * z
        for factor, x0 in zip(step.x0_factors, x0s):
            z = z + factor * x0
        if step.noise > 0:
            z = z + step.noise * next(noises)
        if on_step is not None:
            on_step(done, len(table))
    return z


def draws(gens: Sequence[torch.Generator], z: Tensor, count: int, *, ahead: int) -> Iterator[Tensor]:
    """Yields unit noise like z [B, D] `count` times, row i from the generator of item i.

    ahead: how many are drawn and moved to the device together, from pinned memory and without waiting for it; the
    numbers do not depend on it.
    """
    import torch

    for start in range(0, count, ahead):
        drawn = torch.stack([randn_items(z.shape[1:], gens) for _ in range(min(ahead, count - start))])
        drawn = drawn.pin_memory() if z.device.type == "cuda" else drawn
        yield from drawn.to(z.device, non_blocking=True).to(z.dtype)


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
    """Raises ConfigError for an unknown sampler."""
    hint = suggest(str(name), SAMPLERS)
    ensure(name in SAMPLERS, f"unknown sampler {name!r}{hint}; choose from {', '.join(SAMPLERS)}")
