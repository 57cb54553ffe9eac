"""Schedulers of diffusers: reads a folder's, replaces it by another, makes a fresh one for each call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import ConfigError, ModelError, ensure
from pops.files import read_json_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What StableDiffusionPipeline replaces in outdated scheduler settings.
OUTDATED: Mapping[str, Any] = MappingProxyType({"steps_offset": 1, "clip_sample": False})


class Scheduler(Protocol):
    """What the loops use of a scheduler of diffusers; most classes have further methods and settings."""

    config: Any  # diffusers' FrozenDict of the class's own settings
    timesteps: Tensor

    @property
    def init_noise_sigma(self) -> Any:
        """The standard deviation of the noise that sampling starts from: a float or a tensor."""
        ...

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> Scheduler:
        """Returns a scheduler with these settings."""
        ...

    def set_timesteps(self, num_inference_steps: int, *, device: str | torch.device | None = None) -> None:
        """Chooses the timesteps of a run."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Returns samples with the noise of these timesteps."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Returns what the network reads of a sample."""
        ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **arguments: Any) -> Any:
        """Returns the next sample, as prev_sample."""
        ...


def read_scheduler(folder: Path, *, replaced: Mapping[str, Any] | None = None) -> Scheduler:
    """Reads a folder's scheduler. Those of its settings that `replaced` names get the values there.

    Raises ModelError where scheduler/scheduler_config.json cannot be read or names no scheduler of diffusers.
    """
    import diffusers

    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json_object(path, ModelError)
    try:
        kind = getattr(diffusers, config["_class_name"])
        scheduler: Scheduler = kind.from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{path} names no scheduler of diffusers ({type(e).__name__}: {e}); fetch it again") from e
    settings = {name: value for name, value in (replaced or {}).items() if name in scheduler.config}
    return kind.from_config(scheduler.config, **settings) if settings else scheduler


def scheduler_of(own: Scheduler, wanted: str | Scheduler | None) -> Scheduler:
    """Returns the wanted scheduler: None for the folder's own, one of diffusers by its class name with the settings of
    the folder's own, or one that is ready.
    """
    if not isinstance(wanted, str):
        return own if wanted is None else wanted
    import diffusers

    kind = getattr(diffusers, wanted, None)
    fits = isinstance(kind, type) and wanted.endswith("Scheduler")
    ensure(fits, f"unknown scheduler {wanted!r}; name a class of diffusers, such as EulerDiscreteScheduler")
    try:
        return kind.from_config(own.config)  # type: ignore[union-attr, no-any-return]
    except Exception as e:  # a missing package, a setting it does not take
        raise ConfigError(f"{wanted} cannot be made here ({str(e).strip().splitlines()[0]}); name another") from e


def fresh_scheduler(
    template: Scheduler, steps: int, device: str | torch.device, *, settings: Mapping[str, Any] | None = None
) -> Scheduler:
    """Returns a new scheduler with the template's settings, timesteps set: its state belongs to one call."""
    scheduler = type(template).from_config(template.config, **(settings or {}))
    scheduler.set_timesteps(steps, device=device)
    return scheduler


def step_arguments(scheduler: Scheduler, gens: Sequence[torch.Generator]) -> dict[str, Any]:
    """Returns what this scheduler's step() takes beside the sample: eta (0, DDIM's), one generator per image."""
    takes = inspect.signature(scheduler.step).parameters
    return ({"eta": 0.0} if "eta" in takes else {}) | ({"generator": list(gens)} if "generator" in takes else {})
