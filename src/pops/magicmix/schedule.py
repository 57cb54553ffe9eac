"""The window of steps, nu over the window, and one run of any diffusers scheduler from its middle.

Knows neither networks nor prompts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.errors import ConfigError, PopsError, ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Nu: TypeAlias = "float | Sequence[float]"  # several: passed through at equal distances, in straight lines between
MAX_STEPS = 1000


def check_nu(nu: object) -> tuple[float, ...]:
    """nu as numbers from 0 to 1, at least one; ConfigError for anything else."""
    values: list[Any] = list(nu) if isinstance(nu, Sequence) and not isinstance(nu, str) else [nu]
    ensure(len(values) > 0, "nu is an empty list; give a number from 0 to 1, or several")
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fine = number and 0 <= value <= 1
        ensure(fine, f"nu must be from 0 (the layout) to 1 (the content), got {value!r}")
    return tuple(float(value) for value in values)


def parse_nu(text: str) -> float | list[float]:
    """`0.9`, or a schedule `0.9,0.5`; ConfigError for anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        told = f"nu is a number from 0 to 1, or several with commas, such as 0.9,0.5; got {text!r}"
        raise ConfigError(told) from None
    return values if len(values) > 1 else values[0]


# arXiv 2210.16056 section 3, with the indices of the public implementations: of the timesteps T[0..N-1], descending,
# mixing starts at T[N - int(k_max N)] and ends before T[N - int(k_min N)].
@dataclass(frozen=True)
class Window:
    """Steps [start, end) of `steps`: the picture starts as the layout at `start`, mixed at start + 1 .. end - 1."""

    steps: int
    start: int
    end: int

    @staticmethod
    def of(k_min: float, k_max: float, steps: int) -> Window:
        """k_min, k_max: fractions of the steps, counted from the end."""
        return Window(steps, steps - int(k_max * steps), steps - int(k_min * steps))

    def nu(self, values: Sequence[float], step: int) -> float | None:
        """The weight of the content before this step, None where nothing is mixed."""
        first, last = self.start + 1, self.end - 1
        if not first <= step <= last:
            return None
        place = (step - first) / max(1, last - first) * (len(values) - 1)
        low = min(int(place), max(0, len(values) - 2))
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])


# Classes that have all the methods and yet cannot do this, and why.
_REFUSED = {
    "DDIMInverseScheduler": "it runs from pictures to noise",
    "DPMSolverMultistepInverseScheduler": "it runs from pictures to noise",
    "RePaintScheduler": "it is for inpainting",
    "DPMSolverSDEScheduler": "its noise cannot be drawn picture by picture",
    "CosineDPMSolverMultistepScheduler": "it is for another kind of network",
    "EDMDPMSolverMultistepScheduler": "it is for another kind of network",
    "EDMEulerScheduler": "it is for another kind of network",
    "CMStochasticIterativeScheduler": "it is for consistency models",
}
_NEEDED = ("set_timesteps", "scale_model_input", "step", "add_noise", "init_noise_sigma")
ADVICE = "use another, such as DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler"


def check_scheduler(scheduler: Any) -> None:
    """ConfigError in one line for a scheduler that Stable Diffusion's loop cannot run from its middle."""
    name = type(scheduler).__name__
    ensure(name not in _REFUSED, f"{name} does not go with mixing ({_REFUSED.get(name)}); {ADVICE}")
    lacks = [needed for needed in _NEEDED if not hasattr(scheduler, needed)]
    ensure(not lacks, f"{name} does not go with mixing (it has no {', '.join(lacks)}); {ADVICE}")


class Run:
    """One way down the noise levels, with a scheduler of its own; state of multistep solvers stays in it.

    A *call* is one evaluation of the network. Solvers of second order take two a step; calls[0] is the first one
    from step `start` on. What is at a call: its timestep; L(call) is a picture with the noise of that call.
    """

    def __init__(self, template: Any, steps: int, device: Any, start: int = 0) -> None:
        self.name = type(template).__name__
        with _refusing(self.name, f"{steps} steps"):
            self._scheduler, self._noiser = (_fresh(template, steps, device) for _ in range(2))
            self.timesteps: Tensor = self._scheduler.timesteps
            self.order = int(getattr(self._scheduler, "order", 1))
            first = start * self.order
            self.calls = range(min(first, len(self.timesteps)), len(self.timesteps))
            if hasattr(self._scheduler, "set_begin_index") and self.calls:
                self._scheduler.set_begin_index(first)
            takes = inspect.signature(self._scheduler.step).parameters
        self._eta = {"eta": 0.0} if "eta" in takes else {}
        self._stochastic = "generator" in takes

    def step_of(self, call: int) -> int | None:
        """The step a call begins; None for the second call of a step."""
        return None if call % self.order else call // self.order

    def prior(self, noise: Tensor) -> Tensor:
        """Normal noise -> what the first step of all starts from."""
        with _refusing(self.name):
            drawn: Tensor = noise * self._scheduler.init_noise_sigma
            return drawn

    def noised(self, x0: Tensor, noise: Tensor, call: int) -> Tensor:
        """x0 [B, C, h, w] with the noise of this call."""
        with _refusing(self.name):
            if hasattr(self._noiser, "set_begin_index"):  # else it looks the timestep up, and two may be equal
                self._noiser.set_begin_index(call)
            noised: Tensor = self._noiser.add_noise(x0, noise, self._noiser.timesteps[call : call + 1])
            return noised

    def scaled(self, x: Tensor, call: int) -> Tensor:
        """What the network sees of x."""
        with _refusing(self.name):
            scaled: Tensor = self._scheduler.scale_model_input(x, self.timesteps[call])
            return scaled

    def step(self, out: Tensor, call: int, x: Tensor, gens: Sequence[torch.Generator]) -> tuple[Tensor, Tensor | None]:
        """The network's output at x -> x one call later, and the finished picture as guessed (or None)."""
        how = {**self._eta, **({"generator": list(gens)} if self._stochastic else {})}
        with _refusing(self.name):
            stepped = self._scheduler.step(out, self.timesteps[call], x, **how)
            return stepped.prev_sample, getattr(stepped, "pred_original_sample", None)


def _fresh(template: Any, steps: int, device: Any) -> Any:
    # PNDM's Runge-Kutta warm-up counts from the first step of all, so that nothing can start after it.
    without = {"skip_prk_steps": True} if "skip_prk_steps" in template.config else {}
    scheduler = type(template).from_config(template.config, **without)
    scheduler.set_timesteps(steps, device=device)
    timesteps = scheduler.timesteps
    ensure(bool(timesteps[0] >= timesteps[-1]), "its timesteps rise")
    least = int(getattr(scheduler, "order", 1)) * (steps - 1) + 1
    ensure(len(timesteps) >= least, f"it has {len(timesteps)} timesteps and not {least}")
    return scheduler


@contextmanager
def _refusing(name: str, what: str = "mixing") -> Iterator[None]:
    """Whatever a scheduler raises becomes one line with its name."""
    try:
        yield
    except (MemoryError, Warning):  # a warning made an error by whoever runs us
        raise
    except PopsError as e:
        raise ConfigError(f"{name} does not go with {what} ({e}); {ADVICE}") from e
    except Exception as e:  # each has its own way to refuse: ValueError, IndexError, ImportError, AttributeError, ...
        if "memory" in str(e).lower():
            raise
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip(". ")
        raise ConfigError(f"{name} does not go with {what} ({reason}); {ADVICE}") from e


def check_fraction(name: str, value: object) -> float:
    """A number from 0 to 1; ConfigError with the setting's name."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ensure(
        number and 0 <= value <= 1,  # type: ignore[operator]  # a number by then
        f"{name} is a fraction of the steps, from 0 to 1, got {value!r}",
    )
    return float(value)  # type: ignore[arg-type]
