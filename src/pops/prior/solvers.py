"""The steps of each sampler, as numbers: pure functions of the timesteps that are visited.

Every sampler here is linear in the state z, the x0 predictions so far and fresh noise. So a solver returns a table of
factors, computed on the host before sampling begins. Knows no model, no embeddings and no generators.

Letters as in the papers: z_t = alpha x0 + sigma noise, lambda = log(alpha / sigma), h = a step in lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from pops.errors import ConfigError, ensure
from pops.prior.noise import alphas_cumprod, betas

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One step: z <- z_factor z + x0_factors[0] x0 + x0_factors[1] (previous x0) + ... + noise (a unit draw).

    x0 is the prediction from z at timestep t.
    """

    t: int
    z_factor: float
    x0_factors: tuple[float, ...]
    noise: float = 0.0


Solver: TypeAlias = Callable[[Sequence[int], int], "list[Step]"]  # (timesteps, descending; training steps)


@dataclass(frozen=True)
class Level:
    """A timestep's alpha and sigma on the schedule, in float64."""

    alpha: float
    sigma: float

    @property
    def lambda_(self) -> float:
        return math.log(self.alpha / self.sigma)


@cache
def levels(n: int) -> tuple[Level, ...]:
    """Returns the Level of each of n timesteps, from the float32 alpha-bar that the prior was trained with."""
    return tuple(Level(math.sqrt(abar), math.sqrt(1.0 - abar)) for abar in alphas_cumprod(n).tolist())


def last(t: int) -> Step:
    """Returns the last step of all solvers but the ancestral: the prediction itself, which sigma = 0 leaves."""
    return Step(t, 0.0, (1.0,))


# --- the papers' sampler, ancestral ----------------------------------------------------------------------------------


# unCLIP's ancestral DDPM, arXiv 2006.11239 Eq. 7 over the timesteps that are visited, with their own betas.
def ancestral_coefficients(t: int, t_next: int | None, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the factors of x0 and z and the noise's standard deviation for one step t -> t_next (None: the end).

    float32 scalars, computed as UnCLIPScheduler does: for the last step abar_next is 1, and beta is betas[t] if t_next
    is t - 1. From t = 0 the factor of x0 is therefore betas[0] / (1 - abar[0]) in float32, 0.9994723 instead of 1.
    """
    import torch

    abar, table, one = alphas_cumprod(n), betas(n), torch.tensor(1.0)
    a, a_next = abar[t], one if t_next is None else abar[t_next]
    beta = table[t] if t == (0 if t_next is None else t_next + 1) else 1 - a / a_next
    x0_factor = a_next.sqrt() * beta / (1 - a)
    z_factor = (1 - beta).sqrt() * (1 - a_next) / (1 - a)
    sigma = ((1 - a_next) / (1 - a) * beta).clamp(min=1e-20).log().mul(0.5).exp()
    return x0_factor, z_factor, sigma if t_next is not None else torch.tensor(0.0)


def ancestral(path: Sequence[int], n: int) -> list[Step]:
    """Returns UnCLIPScheduler's steps, with exactly its factors."""
    steps = []
    for t, t_next in zip(path, [*path[1:], None], strict=True):
        x0_factor, z_factor, sigma = ancestral_coefficients(t, t_next, n)
        steps.append(Step(t, float(z_factor), (float(x0_factor),), float(sigma)))
    return steps


# --- few-step solvers ------------------------------------------------------------------------------------------------


# DDIM, arXiv 2010.02502 Eq. 12, for a model that predicts x0: eps = (z - alpha x0) / sigma. Its noise, here s: Eq. 16.
def ddim_step(t: int, now: Level, after: Level, eta: float) -> Step:
    """Returns a step from `now` to `after`; eta 0: deterministic; eta 1: as much noise as DDPM's posterior has."""
    s = eta * after.sigma / now.sigma * math.sqrt(max(0.0, 1 - (now.alpha / after.alpha) ** 2))
    eps = math.sqrt(max(0.0, after.sigma**2 - s**2))
    return Step(t, eps / now.sigma, (after.alpha - eps * now.alpha / now.sigma,), s)


def ddim(path: Sequence[int], n: int, eta: float = 0.0) -> list[Step]:
    table = levels(n)
    return [*(ddim_step(t, table[t], table[u], eta) for t, u in pairwise(path)), last(path[-1])]


# DPM-Solver++(2M), arXiv 2211.01095 Algorithm 2: D = (1 + 1 / 2r) x0 - 1 / 2r (previous x0), r = h_before / h.
def extrapolated(h: float, h_before: float | None) -> tuple[float, ...]:
    """Returns D as factors of the predictions; the first step (h_before None) has only one and is of first order."""
    if h_before is None:
        return (1.0,)
    r = h_before / h
    return 1 + 0.5 / r, -0.5 / r


# The same: z <- sigma' / sigma z - alpha' (e^-h - 1) D.
def dpmpp_step(t: int, now: Level, after: Level, h_before: float | None) -> Step:
    h = after.lambda_ - now.lambda_
    weight = -after.alpha * math.expm1(-h)
    return Step(t, after.sigma / now.sigma, tuple(weight * d for d in extrapolated(h, h_before)))


# SDE-DPM-Solver++(2M), same paper: z <- sigma' / sigma e^-h z + alpha' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) noise.
def dpmpp_sde_step(t: int, now: Level, after: Level, h_before: float | None) -> Step:
    h = after.lambda_ - now.lambda_
    spread = -math.expm1(-2 * h)
    factors = tuple(after.alpha * spread * d for d in extrapolated(h, h_before))
    return Step(t, after.sigma / now.sigma * math.exp(-h), factors, after.sigma * math.sqrt(spread))


def multistep(step: Callable[[int, Level, Level, float | None], Step], path: Sequence[int], n: int) -> list[Step]:
    """Returns the steps of a second-order multistep solver; `step` gets the size of the step before, too."""
    table = levels(n)
    steps: list[Step] = []
    h_before: float | None = None
    for t, u in pairwise(path):
        steps.append(step(t, table[t], table[u], h_before))
        h_before = table[u].lambda_ - table[t].lambda_
    return [*steps, last(path[-1])]


def dpmpp_2m(path: Sequence[int], n: int) -> list[Step]:
    return multistep(dpmpp_step, path, n)


def dpmpp_2m_sde(path: Sequence[int], n: int) -> list[Step]:
    return multistep(dpmpp_sde_step, path, n)


# --- which timesteps are visited -------------------------------------------------------------------------------------


# "Trailing", arXiv 2305.08891 Table 2: equal parts from pure noise on, the last prediction one part before the end.
# unCLIP's own timesteps (noise.timesteps) have their last one at t = 0, where nothing is left to predict.
def trailing(steps: int, n: int) -> list[int]:
    """Returns the timesteps n (1 - i / steps) - 1, descending. Raises ConfigError unless 1 <= steps <= n."""
    ensure(1 <= steps <= n, f"steps must be between 1 and {n}, got {steps}", ConfigError)
    return [round(n * (1 - i / steps)) - 1 for i in range(steps)]
