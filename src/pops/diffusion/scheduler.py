"""Schedulers of diffusers: reads a folder's, replaces it by another, makes a fresh one for each call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import ConfigError, ModelError, ensure
from pops.files import read_json_object
from pops.loading.lock import LOADING
from pops.loading.parts import AGAIN, check_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

USUAL = "DDIMScheduler or EulerDiscreteScheduler"  # in a message
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

    Raises ModelError where scheduler/scheduler_config.json cannot be read, names no scheduler of diffusers, or one that
    cannot sample here: a package is missing, or it is for another kind of network.
    """
    check_files(folder / "scheduler", "scheduler_config.json")
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json_object(path, ModelError)
    name = config.get("_class_name")
    with LOADING:
        import diffusers

        kind = getattr(diffusers, name, None) if isinstance(name, str) and name.endswith("Scheduler") else None
        ensure(kind is not None, f"{path} names no scheduler of diffusers ({name!r}); {AGAIN}", ModelError)
        try:
            scheduler = _made(kind, config)
            settings = {name: value for name, value in (replaced or {}).items() if name in scheduler.config}
            scheduler = _made(kind, scheduler.config, settings) if settings else scheduler
            with suppress(Warning):  # made errors by whoever runs us; they come again where they belong
                _try(scheduler)
        except Warning:
            raise
        except Exception as e:  # each class has its own: ImportError, ValueError, AttributeError, IndexError, ...
            told = f"the scheduler {name} of {path} cannot sample here ({_reason(e)}); name another there"
            raise ModelError(f"{told}, such as {USUAL}") from e
    return scheduler


def _made(kind: Any, config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Scheduler:
    """Makes a scheduler without the library's words about settings that its class does not have."""
    takes = inspect.signature(kind.__init__).parameters
    known = {name: value for name, value in config.items() if name in takes or name.startswith("_")}
    made: Scheduler = kind.from_config(known, **(settings or {}))
    return made


def _try(scheduler: Scheduler) -> None:
    """Takes some steps on a few numbers, as the loops do; raises whatever the scheduler raises."""
    import torch

    ours = fresh_scheduler(scheduler, 5, "cpu")  # PNDM needs four to begin with
    timesteps = ours.timesteps
    ensure(bool(timesteps[0] >= timesteps[-1]), "it runs from images to noise, or its timesteps rise")
    gens = [torch.Generator().manual_seed(0)]
    x = torch.randn(1, 4, 8, 8, generator=gens[0]) * ours.init_noise_sigma
    learned = str(ours.config.get("variance_type")).startswith("learned")
    for t in timesteps:
        out = ours.scale_model_input(x, t)
        out = torch.cat([out, out], dim=1) if learned else out
        x = ours.step(out, t, x, **step_arguments(ours, gens)).prev_sample
    ensure(tuple(x.shape) == (1, 4, 8, 8), "its steps have another shape")


def _reason(error: Exception) -> str:
    """Returns the first sentence of a library's error on one line; what to install, for an absent package."""
    text = " ".join(str(error).split()) or type(error).__name__
    absent = re.search(r"requires the (\S+) library but|install (scipy|torchsde)\b", text)
    if absent:
        package = absent[1] or absent[2]
        return f"it needs {package}: pip install {package}"
    return text.partition(". ")[0][:160].rstrip(".")


def scheduler_of(own: Scheduler, wanted: str | Scheduler | None) -> Scheduler:
    """Returns the wanted scheduler: None for the folder's own, one of diffusers by its class name with the settings of
    the folder's own, or one that is ready.
    """
    if not isinstance(wanted, str):
        return own if wanted is None else wanted
    with LOADING:
        import diffusers

        kind = getattr(diffusers, wanted, None)
    fits = isinstance(kind, type) and wanted.endswith("Scheduler")
    ensure(fits, f"unknown scheduler {wanted!r}; name a class of diffusers, such as EulerDiscreteScheduler")
    try:
        with LOADING:
            return kind.from_config(own.config)  # type: ignore[union-attr, no-any-return]
    except Exception as e:  # a missing package, a setting it does not take
        raise ConfigError(f"{wanted} cannot be made here ({_reason(e)}); name another") from e


def fresh_scheduler(
    template: Scheduler, steps: int, device: str | torch.device, *, settings: Mapping[str, Any] | None = None
) -> Scheduler:
    """Returns a new scheduler with the template's settings, timesteps set: its state belongs to one call.

    Raises ConfigError where it would read its table beyond the end: with steps_offset 1 and as many steps as the table
    has rows, some classes begin with the timestep after the last one.
    """
    scheduler = _made(type(template), template.config, settings)
    scheduler.set_timesteps(steps, device=device)
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is not None and not hasattr(scheduler, "sigmas"):  # the others interpolate
        first, known = int(scheduler.timesteps.max()), len(table)
        told = f"{type(template).__name__} cannot make {steps} steps: it knows {known} timesteps, and would begin after"
        ensure(first < known, f"{told} the last; ask for {steps - 1} or fewer", ConfigError)
    return scheduler


def scheduler_of_call(template: Scheduler, steps: int, device: str | torch.device) -> Scheduler:
    """As `fresh_scheduler`; ConfigError for a number of steps that the scheduler cannot make."""
    try:
        return fresh_scheduler(template, steps, device)
    except (Warning, ConfigError):  # a warning was made an error by whoever runs us
        raise
    except Exception as e:  # each class has its own
        name = type(template).__name__
        raise ConfigError(f"{name} cannot make {steps} steps ({_reason(e)}); ask for another number") from e


def step_arguments(scheduler: Scheduler, gens: Sequence[torch.Generator]) -> dict[str, Any]:
    """Returns what this scheduler's step() takes beside the sample: eta (0, DDIM's), one generator per image."""
    takes = inspect.signature(scheduler.step).parameters
    return ({"eta": 0.0} if "eta" in takes else {}) | ({"generator": list(gens)} if "generator" in takes else {})
