"""The engine compared with the public way, at full size and random weights: time, error, memory, the machine's limits.

Both run in turn in one process, so that both have the same machine: medians over rounds, and the ratio. The public way
is diffusers' own prior on all 81 slots with its own scheduler (`benchmarks.public`). Everything is included: the
condition is encoded in each call.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import machine, memory, public, random_prior, training
from benchmarks.machine import timed
from pops.errors import ConfigError, ensure
from pops.operators.operator import Task, sample
from pops.prior.condition import Condition
from pops.prior.config import ADDED, STEP, PriorConfig
from pops.prior.layers import layers
from pops.prior.linear import Precision, check_precision
from pops.seeds import generators

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.transformer import PriorModel
    from pops.progress import OnProgress

OPERANDS = 2
PUBLIC: tuple[Precision, ...] = ("float32", "bfloat16")  # precisions of the public way
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # per weight


@dataclass(frozen=True)
class Plan:
    """What to measure. shape: of the prior without its layers; encoder: of the training part; None: the real ones."""

    layers: int = 20
    batches: tuple[int, ...] = (1, 2, 8, 32)
    guidances: tuple[float, ...] = (1.0, 8.0)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    steps: int = 25
    rounds: int = 3
    public_steps: int = 1  # of the public way at batches above 1 on a CPU, where all of them would take an hour
    memory: bool = True
    training: bool = True
    train_layers: int = 4
    train_batches: tuple[int, ...] = (1, 2, 4, 8)
    device: str = "cpu"
    shape: Mapping[str, Any] | None = None
    encoder: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        import torch

        for name in ("layers", "rounds", "public_steps", "train_layers"):
            ensure(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        message = f"steps must be between 2 and 1000 (the public scheduler cannot do one), got {self.steps}"
        ensure(2 <= self.steps <= 1000, message)
        for name in ("batches", "train_batches", "guidances", "precisions"):
            ensure(len(getattr(self, name)) > 0, f"{name} must not be empty")
        for batch in (*self.batches, *self.train_batches):
            ensure(1 <= batch <= 4096, f"a batch must be between 1 and 4096, got {batch}")
        for guidance in self.guidances:
            ensure(0 <= guidance < float("inf"), f"guidance must not be negative, got {guidance}")
        for precision in self.precisions:
            check_precision(precision, torch.device(self.device).type)

    @property
    def config(self) -> dict[str, Any]:
        return random_prior.settings(self.layers, self.shape)

    @property
    def dim(self) -> int:
        return int(self.config["embedding_dim"])

    def public_steps_at(self, batch: int) -> int:
        """Returns how many of the public way's steps are run."""
        whole = batch == 1 or self.device.startswith("cuda")
        return self.steps if whole else min(self.steps, self.public_steps)


@dataclass(frozen=True)
class Ours:
    """One precision of the engine in a cell; seconds. floor: of a step, see `floor_of`; error: relative, of item 0."""

    seconds: float
    step: float  # seconds / steps
    floor: float
    of_floor: float  # step / floor
    speedups: dict[str, float]  # by the public way's precision
    error: float


@dataclass(frozen=True)
class Cell:
    """A batch size and guidance scale; median seconds of all steps. public_steps: how many were run."""

    batch: int
    guidance: float
    public: dict[str, float]
    public_steps: int
    public_error: dict[str, float]  # other precisions against float32, if all steps were run
    ours: dict[str, Ours]


@dataclass
class Report:
    """Rates are per second; build: by precision, seconds to pack the weights, which are in memory."""

    layers: int
    parameters: int
    steps: int
    rounds: int
    machine: dict[str, Any]
    read_rate: float
    matrix_rates: dict[str, float]
    build: dict[str, float] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    memory: list[memory.Peak] | None = None
    training: training.Report | None = None


class _Ticks:
    """Reports what begins now, and how much is done."""

    def __init__(self, plan: Plan, on_progress: OnProgress | None) -> None:
        cells, ways = len(plan.batches) * len(plan.guidances), len(PUBLIC) + len(plan.precisions)
        self.total = 1 + len(PUBLIC) + len(plan.precisions) + cells * ways * plan.rounds
        self.total += 1 + ways if plan.memory else 0
        self.total += len(plan.train_batches) * (plan.rounds + 1) if plan.training else 0
        self.done, self.on_progress = 0, on_progress

    def __call__(self, what: str) -> None:
        if self.on_progress is not None:
            self.on_progress(self.done, self.total, what)
        self.done += 1


def measure(plan: Plan, *, on_progress: OnProgress | None = None) -> Report:
    """Measures the plan. Raises ConfigError if the machine has too little memory or disk space for it."""
    import torch

    device = torch.device(plan.device)
    _check_room(plan, device)
    tick = _Ticks(plan, on_progress)

    # 1) The machine's limits; then peak memory, in separate processes, before this one grows.
    about = machine.described(device)
    tick("the machine")
    rates: dict[str, float] = {name: machine.matrix_rate(name, device) for name in plan.precisions}
    report = Report(
        plan.layers, random_prior.count(PriorConfig.of(plan.config)), plan.steps, plan.rounds, about,
        machine.read_rate(device), rates,
    )  # fmt: skip
    if plan.memory:
        report.memory = _memory(plan, tick)

    # 2) Sampling, with all ways in memory at once.
    sampling = _Sampling(plan, report, device, tick)
    for batch in sorted(set(plan.batches)):
        for guidance in dict.fromkeys(plan.guidances):
            report.cells.append(sampling.cell(batch, guidance))
    del sampling
    gc.collect()

    # 3) Training.
    if plan.training:
        report.training = training.measure(
            plan.train_layers, plan.train_batches, rounds=plan.rounds, device=device, shape=plan.shape,
            encoder=plan.encoder, on_round=tick,
        )  # fmt: skip
    return report


def _memory(plan: Plan, tick: Callable[[str], None]) -> list[memory.Peak]:
    ways = [("ours", p) for p in plan.precisions] + [("public", p) for p in PUBLIC]
    with tempfile.TemporaryDirectory(prefix="pops-bench-") as folder:
        tick("writing the prior")
        random_prior.write_folder(plan.config, Path(folder))
        peaks = []
        for way, precision in ways:
            tick(f"memory: {way}, {precision}")
            peaks.append(memory.measure(Path(folder), way, precision, plan.device))
        return peaks


# --- sampling ---------------------------------------------------------------------------------------------------------


class _Sampling:
    """All ways in memory, with the same weights."""

    def __init__(self, plan: Plan, report: Report, device: torch.device, tick: Callable[[str], None]) -> None:
        """Draws the weights and packs them; writes the time that packing takes to the report."""
        from pops.prior.transformer import PriorModel

        self.plan, self.report, self.device, self.tick = plan, report, device, tick
        config = plan.config
        tick(f"the public way, {PUBLIC[0]}")
        drawn = random_prior.RandomTensors(PriorConfig.of(config))
        self.theirs = {str(PUBLIC[0]): PriorModel(tensors=drawn, settings=config, device=device).transformer}
        weights = self.theirs[PUBLIC[0]].state_dict()
        for name in PUBLIC[1:]:
            tick(f"the public way, {name}")
            model = PriorModel(tensors=weights, settings=config, precision=name, device=device)
            self.theirs[name] = model.transformer
        self.ours: dict[str, PriorModel] = {}
        for precision in plan.precisions:
            tick(f"packing, {precision}")
            model = PriorModel(tensors=weights, settings=config, precision=precision, device=device)
            report.build[precision], _ = timed(lambda model=model: model.engine, device)  # type: ignore[misc]
            self.ours[precision] = model
        self.truths: dict[float, Tensor] = {}  # guidance -> the public way's item 0 in float32

    def publicly(self, name: str, batch: int, guidance: float, only: int) -> Tensor:
        tokens = _tokens(batch, self.plan.dim)
        gens = generators(range(batch))
        return public.sample(self.theirs[name], tokens, gens, guidance=guidance, steps=self.plan.steps, only=only)

    def engine(self, name: str, batch: int, guidance: float, steps: int) -> Tensor:
        task = Task(self.ours[name], Condition(_tokens(batch, self.plan.dim)), guidance)
        return sample([task], generators(range(batch)), steps=steps)

    def cell(self, batch: int, guidance: float) -> Cell:
        """Measures one cell: all ways in turn, as many rounds as planned."""
        only, steps = self.plan.public_steps_at(batch), self.plan.steps

        # 1) Warm-up: ours in every cell, the public way in the first (on CUDA in every one).
        for name in self.ours:
            self.engine(name, batch, guidance, 2)
        if not self.report.cells or self.device.type == "cuda":
            for name in self.theirs:
                self.publicly(name, batch, guidance, 1)

        # 2) Rounds.
        runs: dict[tuple[str, str], Callable[[], Tensor]] = {}
        for name in self.theirs:
            runs["public", name] = partial(self.publicly, name, batch, guidance, only)
        for name in self.ours:
            runs["ours", name] = partial(self.engine, name, batch, guidance, steps)
        times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        results: dict[tuple[str, str], Tensor] = {}
        for i in range(self.plan.rounds):
            for key, run in runs.items():
                way, name = key
                self.tick(f"batch {batch}, guidance {guidance:g}, round {i + 1}: {way}, {name}")
                seconds, results[key] = timed(run, self.device)
                times[key].append(seconds * steps / only if way == "public" else seconds)

        # 3) Medians, and the errors of item 0, which is the same in every batch.
        if guidance not in self.truths:
            whole = results["public", PUBLIC[0]] if only == steps else self.publicly(PUBLIC[0], 1, guidance, steps)
            self.truths[guidance] = whole[0]
        truth = self.truths[guidance]
        by_public = {name: median(times["public", name]) for name in self.theirs}
        errors = {str(n): off(results["public", n][0], truth) for n in PUBLIC[1:] if only == steps}
        ours = {}
        for name in self.ours:
            seconds = median(times["ours", name])
            floor = self._floor(name, batch * (2 if guidance > 1 else 1))
            speedups = {p: t / seconds for p, t in by_public.items()}
            error = off(results["ours", name][0], truth)
            ours[name] = Ours(seconds, seconds / steps, floor, seconds / steps / floor, speedups, error)
        return Cell(batch, guidance, by_public, only, errors, ours)

    def _floor(self, name: str, rows: int) -> float:
        config = PriorConfig.of(self.plan.config)
        return floor_of(config, rows, name, self.report.read_rate, self.report.matrix_rates[name])


def _tokens(batch: int, dim: int) -> Tensor:
    """Draws two operands per item, [batch, 2, dim], standardised; item i is the same in every batch."""
    import torch

    return torch.stack([torch.randn(OPERANDS, dim, generator=g) for g in generators(range(10_000, 10_000 + batch))])


def off(e: Tensor, truth: Tensor) -> float:
    """Returns the relative error |e - truth| / |truth|."""
    return float((e - truth).norm() / truth.norm())


def floor_of(config: PriorConfig, rows: int, precision: str, read_rate: float, matrix_rate: float) -> float:
    """Returns the seconds that a step of `rows` rows takes at least: reading its weights once, or its products.

    The products are those of three tokens per row; in the last block, of the query alone, but for keys and values.
    Attention, norms and the cached keys and values are left out: it is a lower bound.
    """
    import math

    weights = operations = 0
    for name, stems in layers(config).items():
        if name in ("token", "text"):  # the condition's, not a step's
            continue
        size = sum(math.prod(config.shapes[f"{stem}.weight"]) for stem in stems)
        block, _, part = name.rpartition(".")
        every = bool(block) and (part == "qkv" or int(block) < config.layers - 1)
        weights += size
        operations += 2 * size * rows * (STEP if every else 1)
    return max(weights * BYTES[precision] / read_rate, operations / matrix_rate)


# --- memory -----------------------------------------------------------------------------------------------------------


def needed(plan: Plan) -> dict[str, int]:
    """Estimates the bytes that sampling and training need at most: the weights of all ways, and activations."""
    config = PriorConfig.of(plan.config)
    weights, width, slots = random_prior.count(config), config.width, config.slots + ADDED
    rows = max(plan.batches) * (2 if max(plan.guidances) > 1 else 1)
    sampling = weights * sum(BYTES[p] for p in (*PUBLIC, *plan.precisions)) + 4 * rows * slots * width * 16
    room = {"sampling": sampling * 9 // 8}  # packing fragments memory
    if plan.training:
        part = random_prior.count(PriorConfig.of(random_prior.settings(plan.train_layers, plan.shape)))
        copies = 4 + 5 + 1  # of both ways weights, gradients, two moments; our average; the encoder
        activations = max(plan.train_batches) * slots * width * 40 * plan.train_layers
        room["training"] = 4 * (part * copies + activations)
    return room


def _check_room(plan: Plan, device: torch.device) -> None:
    free, room = machine.free_memory(device), needed(plan)
    less = {
        "sampling": "fewer of --precision, a smaller --batch, or --layers 8",
        "training": "--train-layers 2, a smaller --train-batch, or --no-training",
    }
    for part, wanted in room.items():
        if free is not None and wanted > free:
            message = f"{part} needs about {wanted / 1e9:.1f} GB of memory and {free / 1e9:.1f} are free"
            raise ConfigError(f"{message}; close other programs, or use {less[part]}")
    if plan.memory:
        size, place = 4 * random_prior.count(PriorConfig.of(plan.config)), tempfile.gettempdir()
        left = shutil.disk_usage(place).free
        message = f"the prior's file needs {size / 1e9:.1f} GB and {place} has {left / 1e9:.1f} free"
        ensure(size <= left, f"{message}; set TMPDIR, or use --no-memory")
