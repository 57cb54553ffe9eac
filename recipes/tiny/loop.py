"""What the recipe's own training stages share: one resumable loop with a schedule, averaged weights and a log.

On CUDA everything that a step needs lies on the device: the averages, the random numbers, the sums of the figures (so
that a step waits for the device only where it logs).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recipes.tiny import settings


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: a number of steps, or minutes of its own time, summed over all its resumptions.

    until: instead, to a time of the clock (seconds since the epoch), whatever comes before its first step.
    """

    steps: int | None = None
    minutes: float | None = None
    until: float | None = None

    def begun(self, seconds: float) -> Budget:
        """Turns a time of the clock into minutes, for a stage that has trained for so many seconds and goes on now."""
        if self.until is None:
            return self
        return Budget(minutes=max(0.0, seconds + self.until - time.time()) / 60)

    def share(self, step: int, seconds: float) -> float:
        """The share of the budget that is used up, 0 to 1."""
        if self.minutes is not None:
            return min(1.0, seconds / max(1e-9, 60 * self.minutes))
        return min(1.0, step / max(1, self.steps or 0))

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, steps: int) -> None:
        """Adds --steps, --minutes and --until (the last of these wins), --device and --threads."""
        parser.add_argument("--steps", type=int, default=steps)
        parser.add_argument("--minutes", type=float, default=None, help="train for so long, whatever the steps")
        parser.add_argument("--until", type=float, default=None, help="train to this time, seconds since the epoch")
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--threads", type=int, default=torch.get_num_threads())

    @classmethod
    def of(cls, args: argparse.Namespace) -> Budget:
        return cls(args.steps if args.minutes is None else None, args.minutes, args.until)


def prepare(args: argparse.Namespace) -> torch.device:
    """Sets the number of threads, and on CUDA fast matrix products; returns the device of the arguments."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def half(device: torch.device, enabled: bool = True) -> torch.autocast:
    """Returns the autocast to bfloat16 on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compiles a function on CUDA, where the kernels between convolutions are what costs; elsewhere returns it as is.

    What the compiler cannot take runs eagerly; if the first step fails, all of it does (see Stage.run).
    """
    if device.type != "cuda":
        return function
    torch._dynamo.config.suppress_errors = True
    return torch.compile(function, dynamic=False)


def flat_then_decay(share: float, step: int, warmup: int = 200, decay: float = 0.4) -> float:
    """Warm-up, flat, then a cosine to (almost) nothing over the last `decay` share of the budget."""
    start = 1 - decay
    fall = 1.0 if share < start else 0.5 + 0.5 * math.cos(math.pi * (share - start) / decay)
    return min(1.0, (step + 1) / warmup) * max(fall, 0.01)


class Average:
    """Exponential moving average of a module's floating tensors, with warm-up of its decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        state = module.state_dict()  # the module's own tensors: listed once, for listing them costs a step on CUDA
        self.values = {k: v.detach().clone() for k, v in state.items()}
        floats = [k for k, v in state.items() if v.is_floating_point()]
        self.pairs = [self.values[k] for k in floats], [state[k] for k in floats]
        self.others = [(self.values[k], state[k]) for k in state.keys() - set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self.pairs, 1 - keep)
        for mean, value in self.others:
            mean.copy_(value)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Data parallelism at its plainest: every worker steps with the mean of all workers' gradients."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(mean.view_as(g))


class Stage:
    """One training stage: `step_loss(step) -> (loss, figures)` is called until the budget is used up.

    A checkpoint (weights, averages, optimiser, step) is written whole every `save_seconds`; the same call resumes, on
    any device; a checkpoint that `carry` brought home has no optimiser, which then begins anew. Batches must be drawn
    from the step number alone (see `generator`), so that a resumed run sees what it would have. The module has to be on
    its device already.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        budget: Budget | int,
        lr: float,
        *,
        ema: float = 0.998,
        weight_decay: float = 0.01,
        save_seconds: float = 180.0,
        groups: list[dict[str, object]] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        decay: float = 0.4,
    ) -> None:
        self.name, self.module, self.save_seconds, self.decay = name, module, save_seconds, decay
        self.budget = budget if isinstance(budget, Budget) else Budget(budget)
        self.folder = settings.WORK / name
        self.device = next(module.parameters()).device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.folder.mkdir(parents=True, exist_ok=True)
        self.optimizer = torch.optim.AdamW(
            groups or module.parameters(), lr=lr, weight_decay=weight_decay, fused=True, betas=betas
        )
        for group in self.optimizer.param_groups:
            group.setdefault("base", group["lr"])
            group["base"] = group["lr"]
        self.average = Average(module, ema)
        self.step, self.seconds = 0, 0.0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
            module.load_state_dict(state["module"])
            for key, value in self.average.values.items():
                value.copy_(state["average"][key])
            if "optimizer" in state:
                self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state.get("seconds", 0.0)
            print(f"{name}: resumed at step {self.step}", flush=True)

    @property
    def share(self) -> float:
        """The share of the budget that is used up, 0 to 1."""
        return self.budget.share(self.step, self.seconds)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def generator(self) -> torch.Generator:
        """On the stage's device; seeded by the step (and the worker) alone."""
        return torch.Generator(self.device).manual_seed((self.step * self.world + self.rank) * 1009)

    def rehearse(self, step_loss: Callable[[int], tuple[Tensor, Mapping[str, Tensor | float]]]) -> None:
        """Computes one step's gradients and drops them: what compiles does so now, not in the first step's time."""
        begun = time.time()
        self._gradients(step_loss, fallback=True)
        self.optimizer.zero_grad(set_to_none=True)
        print(f"{self.name}: compiled in {time.time() - begun:.0f} s", flush=True)

    def run(
        self,
        step_loss: Callable[[int], tuple[Tensor, Mapping[str, Tensor | float]]],
        picture: Callable[[], None] | None = None,
        log_every: int = 50,
        picture_every: int = 1000,
    ) -> None:
        """Trains until the budget is used up; `picture` shows how far it has come, every so many steps and at the end.

        Figures are sums over `log_every` steps, kept as tensors until they are logged.
        """
        self.budget = self.budget.begun(self.seconds)
        begun = saved = last = time.time()
        sums: dict[str, Tensor | float] = {}
        first = self.step
        while (share := self.share) < 1:
            scale = flat_then_decay(share, self.step, decay=self.decay)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * scale
            loss, figures = self._gradients(step_loss, fallback=self.step == first)
            if self.world > 1:
                average_gradients(list(self.module.parameters()))
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            # the fused optimiser leaves out such a step
            setattr(self.optimizer, "found_inf", (~torch.isfinite(norm)).float())  # noqa: B010
            self.optimizer.step()
            self.average.update(self.step)
            self.step += 1
            for k, v in {"loss": loss, **figures}.items():
                sums[k] = sums.get(k, 0.0) + (v.detach() if isinstance(v, Tensor) else v) / log_every
            if self.step % log_every == 0:
                means = {k: round(float(v), 5) for k, v in sums.items()}
                rate = (self.step - first) / (time.time() - begun)
                row = {"step": self.step, "steps_a_second": round(rate, 3), **means}
                sums = {}
                if self.rank == 0:
                    print(self.name, json.dumps(row), flush=True)
                    with (self.folder / "log.jsonl").open("a") as log:
                        log.write(json.dumps(row) + "\n")
            if picture is not None and self.rank == 0 and self.step % picture_every == 0:
                picture()
            if self.rank == 0 and time.time() - saved > self.save_seconds:
                self.save()
                saved = time.time()
            self.seconds, last = self.seconds + time.time() - last, time.time()
        if self.rank == 0:
            self.save()
            if picture is not None:
                picture()

    def _gradients(
        self, step_loss: Callable[[int], tuple[Tensor, Mapping[str, Tensor | float]]], fallback: bool
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Computes one step's gradients. fallback: what fails on CUDA is done again without compiled functions."""
        try:
            self.optimizer.zero_grad(set_to_none=True)
            loss, figures = step_loss(self.step)
            loss.backward()
        except Exception as e:
            if not fallback or self.device.type != "cuda":
                raise
            print(f"{self.name}: going on without compiled functions: {type(e).__name__}: {e}"[:500], flush=True)
            torch.compiler.set_stance("force_eager")
            return self._gradients(step_loss, fallback=False)
        return loss, figures
