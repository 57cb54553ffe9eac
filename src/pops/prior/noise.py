"""The noise of the unCLIP prior, as tables: the cosine schedule and what is derived from it.

Knows no model and draws no random numbers. Timesteps are integers, 0 (nearly clean) to TRAIN_STEPS - 1 (pure noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import ConfigError, ModelError, ensure
from pops.files import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

TRAIN_STEPS = 1000
SCHEDULER_FILE = "scheduler_config.json"


@dataclass(frozen=True)
class SchedulerConfig:
    """What a sampler takes from a model's own scheduler; the defaults are Kandinsky 2.2's.

    train_steps: of the noise schedule. clip: largest absolute value of an x0 prediction, in standardised units; None:
    no clamp.
    """

    train_steps: int = TRAIN_STEPS
    clip: float | None = 5.0

    def __post_init__(self) -> None:
        ensure(self.train_steps >= 2, f"train_steps must be at least 2, got {self.train_steps}")
        told = f"clip_sample_range must be positive, or null for no clamp, got {self.clip}"
        ensure(self.clip is None or self.clip > 0, told)

    @classmethod
    def load(cls, folder: str | Path) -> SchedulerConfig:
        """Reads a folder's `scheduler_config.json` (diffusers' UnCLIPScheduler); missing keys take its defaults.

        Raises ModelError if the file is missing, broken, or of a scheduler that samples in another way.
        """
        path, advice = Path(folder) / SCHEDULER_FILE, "fetch or export the model again"
        data = read_json_object(path, ModelError, advice)
        try:
            train_steps = int(data.get("num_train_timesteps", 1000))
            clip = float(data.get("clip_sample_range", 1.0))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} cannot be read ({error}); {advice}") from error
        wanted = {
            "prediction_type": ("sample", "epsilon"),
            "variance_type": ("fixed_small_log", "fixed_small_log"),
            "beta_schedule": ("squaredcos_cap_v2", "squaredcos_cap_v2"),
        }
        for key, (value, default) in wanted.items():
            got = data.get(key, default)
            ensure(got == value, f"{path}: {key} must be {value!r} for a prior, got {got!r}", ModelError)
        return cls(train_steps, clip if data.get("clip_sample", True) else None)


# Cosine schedule, arXiv 2102.09672 Eq. 17: abar(u) = cos((u + s) / (1 + s) * pi/2)^2, beta_i = 1 -
# abar(u_{i+1}) / abar(u_i).
@cache
def betas(n: int = TRAIN_STEPS) -> Tensor:
    """Returns beta of each of `n` timesteps, float32 [n], at most 0.999 (`squaredcos_cap_v2`); shared, do not write."""
    import torch

    def abar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - abar((i + 1) / n) / abar(i / n), 0.999) for i in range(n)], dtype=torch.float32)


@cache
def alphas_cumprod(n: int = TRAIN_STEPS) -> Tensor:
    """Returns alpha-bar, the signal's share of the variance, of each timestep, float32 [n]; shared, do not write."""
    import torch

    return torch.cumprod(1.0 - betas(n), dim=0)


# DDPM forward process, arXiv 2006.11239 Eq. 4: z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps.
def add_noise(z0: Tensor, noise: Tensor, t: Tensor, abar: Tensor) -> Tensor:
    """Adds noise: standardised z0 [B, D], unit noise [B, D], timesteps t [B] => z_t [B, D]; abar [n] on z0's device."""
    a = abar[t].to(z0.dtype)[:, None]
    return a.sqrt() * z0 + (1 - a).sqrt() * noise


def timesteps(steps: int, n: int = TRAIN_STEPS) -> list[int]:
    """Returns the timesteps of UnCLIPScheduler, descending: round(i * (n - 1) / (steps - 1)).

    A single step, for which the public scheduler divides by zero, is at n - 1, pure noise. Raises ConfigError unless
    1 <= steps <= n.
    """
    ensure(1 <= steps <= n, f"steps must be between 1 and {n}, got {steps}", ConfigError)
    if steps == 1:
        return [n - 1]
    ratio = (n - 1) / (steps - 1)
    return [round(i * ratio) for i in range(steps)][::-1]
