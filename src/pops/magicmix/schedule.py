"""The window of steps, nu over the window, and a run of any diffusers scheduler that starts in its middle.

Knows neither networks nor prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pops.diffusion.checks import is_number
from pops.diffusion.scheduler import Scheduler, fresh_scheduler, step_arguments
from pops.errors import ConfigError, PopsError, ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Nu: TypeAlias = "float | Sequence[float]"  # several: equally spaced over the window, with straight lines between


def check_nu(nu: object) -> tuple[float, ...]:
    """Returns nu as numbers from 0 to 1, at least one; ConfigError for anything else."""
    values = list(nu) if isinstance(nu, Sequence) and not isinstance(nu, str) else [nu]
    ensure(len(values) > 0, "nu is an empty list; give a number from 0 to 1, or several")
    checked = []
    for value in values:
        if not is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"nu must be from 0 (the layout) to 1 (the content), got {value!r}")
        checked.append(float(value))
    return tuple(checked)


def parse_nu(text: str) -> float | list[float]:
    """Reads "0.9", or a schedule "0.9,0.5"; ConfigError for anything else."""
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
    """Steps [start, end) of `steps`: the image starts as the layout at `start`; start + 1 .. end - 1 are mixed."""

    steps: int
    start: int
    end: int

    @staticmethod
    def of(k_min: float, k_max: float, steps: int) -> Window:
        """Returns the window of k_min and k_max, fractions of the steps, counted from the end."""
        return Window(steps, steps - int(k_max * steps), steps - int(k_min * steps))

    def nu(self, values: Sequence[float], step: int) -> float | None:
        """Returns nu, the content's share of the mix made before this step; None outside the mixing window."""
        first, last = self.start + 1, self.end - 1
        if not first <= step <= last:
            return None
        place = (step - first) / max(1, last - first) * (len(values) - 1)
        low = min(int(place), max(0, len(values) - 2))
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])


# Classes that have all the methods and still cannot mix, and why.
_REFUSED = {
    "DDIMInverseScheduler": "it runs from images to noise",
    "DPMSolverMultistepInverseScheduler": "it runs from images to noise",
    "RePaintScheduler": "it is for inpainting",
    "DPMSolverSDEScheduler": "its noise cannot be drawn image by image",
    "CosineDPMSolverMultistepScheduler": "it is for another kind of network",
    "EDMDPMSolverMultistepScheduler": "it is for another kind of network",
    "EDMEulerScheduler": "it is for another kind of network",
    "CMStochasticIterativeScheduler": "it is for consistency models",
}
_NEEDED = ("set_timesteps", "scale_model_input", "step", "add_noise", "init_noise_sigma")
ADVICE = "use another, such as DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler"


def check_scheduler(scheduler: Scheduler) -> None:
    """Raises ConfigError for a scheduler that Stable Diffusion's loop cannot start in the middle."""
    name = type(scheduler).__name__
    ensure(name not in _REFUSED, f"unsupported scheduler {name} for mixing: {_REFUSED.get(name)}; {ADVICE}")
    lacks = [needed for needed in _NEEDED if not hasattr(scheduler, needed)]
    ensure(not lacks, f"unsupported scheduler {name} for mixing: it lacks {', '.join(lacks)}; {ADVICE}")


class Run:
    """One pass over the noise levels, with a scheduler of its own, which keeps the state of multistep solvers.

    A *call* is one evaluation of the network; solvers of second order take two per step. `calls` are those from step
    `start` on, and call i has timestep timesteps[i].
    """

    def __init__(self, template: Scheduler, steps: int, device: str | torch.device, start: int = 0) -> None:
        self.name = type(template).__name__
        with _refusing(self.name, f"{steps} steps"):
            self._scheduler, self._noiser = (_fresh(template, steps, device) for _ in range(2))
            self.timesteps: Tensor = self._scheduler.timesteps
            self.order = int(getattr(self._scheduler, "order", 1))
            first = start * self.order
            self.calls = range(min(first, len(self.timesteps)), len(self.timesteps))
            if hasattr(self._scheduler, "set_begin_index") and self.calls:
                self._scheduler.set_begin_index(first)

    def step_of(self, call: int) -> int | None:
        """Returns the step that a call begins; None for the second call of a step."""
        return None if call % self.order else call // self.order

    def prior(self, noise: Tensor) -> Tensor:
        """Scales standard normal noise to what the very first step starts from."""
        with _refusing(self.name):
            drawn: Tensor = noise * self._scheduler.init_noise_sigma
            return drawn

    def noised(self, x0: Tensor, noise: Tensor, call: int) -> Tensor:
        """Returns x0 [B, C, h, w] with as much noise as it has before this call."""
        with _refusing(self.name):
            if hasattr(self._noiser, "set_begin_index"):  # or it looks the timestep up, and two may be equal
                self._noiser.set_begin_index(call)
            noised: Tensor = self._noiser.add_noise(x0, noise, self._noiser.timesteps[call : call + 1])
            return noised

    def scaled(self, x: Tensor, call: int) -> Tensor:
        """Returns what the network reads of x."""
        with _refusing(self.name):
            return self._scheduler.scale_model_input(x, self.timesteps[call])

    def step(self, out: Tensor, call: int, x: Tensor, gens: Sequence[torch.Generator]) -> tuple[Tensor, Tensor | None]:
        """Returns x one call later, given the network's output, and the scheduler's guess of the end, if any."""
        with _refusing(self.name):
            stepped = self._scheduler.step(out, self.timesteps[call], x, **step_arguments(self._scheduler, gens))
            return stepped.prev_sample, getattr(stepped, "pred_original_sample", None)


def _fresh(template: Scheduler, steps: int, device: str | torch.device) -> Scheduler:
    """Returns a scheduler of its own for a run, checked: its timesteps fall, and are enough for its order."""
    # PNDM's Runge-Kutta warm-up counts from the very first step, so that nothing can start after it.
    settings = {"skip_prk_steps": True} if "skip_prk_steps" in template.config else None
    scheduler = fresh_scheduler(template, steps, device, settings=settings)
    timesteps = scheduler.timesteps
    ensure(bool(timesteps[0] >= timesteps[-1]), "its timesteps rise")
    least = int(getattr(scheduler, "order", 1)) * (steps - 1) + 1
    ensure(len(timesteps) >= least, f"it has {len(timesteps)} timesteps and not {least}")
    return scheduler


@contextmanager
def _refusing(name: str, what: str = "mixing") -> Iterator[None]:
    """Turns whatever a scheduler raises into a one-line ConfigError with its name."""
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
    """Returns the value as a number from 0 to 1; ConfigError, with the setting's name, for anything else."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{name} is a fraction of the steps, from 0 to 1, got {value!r}")
    return float(value)
