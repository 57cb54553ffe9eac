"""The noise of the unCLIP prior, as tables: the cosine schedule and what is derived from it.

Knows no model and draws no random numbers. Timesteps are integers 0 (nearly clean) .. TRAIN_STEPS - 1 (pure
noise).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ModelError, ensure

if TYPE_CHECKING:
    from torch import Tensor

TRAIN_STEPS = 1000
SCHEDULER_FILE = "scheduler_config.json"


@dataclass(frozen=True)
class SchedulerConfig:
    """What the sampler takes from a model's own scheduler: training steps, and the clamp of x0 predictions.

    clip: largest absolute value of a prediction, standardised units; None: no clamp. Defaults: Kandinsky 2.2.
    """

    train_steps: int = TRAIN_STEPS
    clip: float | None = 5.0

    def __post_init__(self) -> None:
        ensure(self.train_steps >= 2, f"train_steps must be at least 2, got {self.train_steps}")
        ensure(self.clip is None or self.clip > 0, f"clip must be positive, got {self.clip}")

    @classmethod
    def load(cls, folder: str | Path) -> SchedulerConfig:
        """From a folder's `scheduler_config.json` (diffusers' UnCLIPScheduler), absent keys at its defaults.

        Raises ModelError when the file is missing, broken, or of a scheduler that samples in another way.
        """
        path = Path(folder) / SCHEDULER_FILE
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            train_steps, clip = (
                int(data.get("num_train_timesteps", 1000)),
                float(data.get("clip_sample_range", 1.0)),
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read ({error}); fetch or export the model again") from error
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
    """beta of each of `n` timesteps, float32 [n], at most 0.999 (`squaredcos_cap_v2`). Shared: read only."""
    import torch

    def abar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - abar((i + 1) / n) / abar(i / n), 0.999) for i in range(n)], dtype=torch.float32)


@cache
def alphas_cumprod(n: int = TRAIN_STEPS) -> Tensor:
    """alpha-bar of each timestep, float32 [n]: the signal's share of the variance. Shared: read only."""
    import torch

    return torch.cumprod(1.0 - betas(n), dim=0)


# DDPM forward process, arXiv 2006.11239 Eq. 4: z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps.
def add_noise(z0: Tensor, noise: Tensor, t: Tensor, abar: Tensor) -> Tensor:
    """Standardised z0 [B, D], unit noise [B, D], timesteps t [B] => z_t [B, D]; `abar` [n] on z0's device."""
    a = abar[t].to(z0.dtype)[:, None]
    return a.sqrt() * z0 + (1 - a).sqrt() * noise


def timesteps(steps: int, n: int = TRAIN_STEPS) -> list[int]:
    """The sampler's timesteps, descending: round(i * (n - 1) / (steps - 1)), as unCLIP's scheduler counts.

    One step, which the public scheduler divides by zero on, starts and ends at n - 1, the pure noise.
    Raises ConfigError unless 1 <= steps <= n.
    """
    ensure(1 <= steps <= n, f"steps must be between 1 and {n}, got {steps}", ConfigError)
    if steps == 1:
        return [n - 1]
    ratio = (n - 1) / (steps - 1)
    return [round(i * ratio) for i in range(steps)][::-1]
