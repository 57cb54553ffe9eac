"""The files of a run: its checkpoint, written whole, and its log. Knows no loop.

A checkpoint holds the trained weights ("param/"), their average ("ema/"), the optimizer's state ("adam/"), and after a
validation the best average ("best/"); its metadata hold the config, the step, and marks of what the run depends on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pops.errors import CheckpointError, PopsError, ensure
from pops.files import keep_before, parse_json, write_whole
from pops.tensors import opened, read_tensors, write_tensors
from pops.training.config import TrainConfig
from pops.weights import check_shapes

logger = logging.getLogger("pops.training")

BEFORE = "before.safetensors"  # the checkpoint before it, for when the newest is damaged
CHECKPOINT, CONFIG, LOG = "checkpoint.safetensors", "config.json", "log.jsonl"
Log = Mapping[str, Any]


@dataclass
class Best:
    """The best validation so far, its weights, and how many came after it. stopped: the run has ended early."""

    figures: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    stopped: bool = False

    def see(self, figures: Mapping[str, float], step: int, weights: Mapping[str, Tensor], patience: int) -> None:
        """Takes a validation into account."""
        if not self.figures or figures["score"] > self.figures["score"]:
            self.figures = {"step": step, **figures}
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
            self.waited = 0
        else:
            self.waited += 1
        self.stopped = self.stopped or 0 < patience <= self.waited

    def marks(self) -> dict[str, str]:
        """Returns what a checkpoint says of it."""
        state = {"figures": self.figures, "waited": self.waited, "stopped": self.stopped}
        return {"best": json.dumps(state)} if self.figures or self.stopped else {}

    @classmethod
    def of(cls, meta: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Best:
        """Reads it from a checkpoint."""
        return cls(weights=part_of(tensors, "best/"), **json.loads(meta.get("best", "{}")))


def save(path: Path, config: TrainConfig, step: int, marks: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Writes a checkpoint; the one before it stays until the newest is whole."""
    meta = {"format": "pops.training", "version": "1", "config": config.to_json(), "step": str(step), **marks}
    with write_whole(path / CONFIG) as temporary:
        temporary.write_text(config.to_json(), encoding="utf-8")
    with suppress(PopsError), opened(path / CHECKPOINT):  # one that is damaged takes no other's place
        keep_before(path / CHECKPOINT, path / BEFORE)
    with write_whole(path / CHECKPOINT) as temporary:
        write_tensors(temporary, {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, meta)


def there(out: Path) -> bool:
    """Whether a run's folder holds a checkpoint."""
    return (out / CHECKPOINT).is_file() or (out / BEFORE).is_file()


def read_latest(out: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads a run's newest checkpoint, or the one before it if the newest is damaged, as when the power failed."""
    try:
        return read(out / CHECKPOINT)
    except CheckpointError as error:
        if not (out / BEFORE).is_file():
            raise
        logger.warning("%s; the checkpoint before it is taken", error)
        return read(out / BEFORE)


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads a checkpoint: what it says, and its tensors; CheckpointError for anything else."""
    again = "remove it to start again"
    tensors, meta = read_tensors(path, CheckpointError, again)
    ours = meta.get("format") == "pops.training" and "config" in meta and meta.get("step", "").isdecimal()
    ensure(ours, f"{path} is not a checkpoint of a training run; {again}", CheckpointError)
    return meta, tensors


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def optimizer_state(optimizer: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"adam/{name}/{k}": v for i, name in enumerate(names) for k, v in state.get(i, {}).items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    state = {i: part_of(tensors, f"adam/{name}/") for i, name in enumerate(names)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})


def check_tensors(tensors: Mapping[str, Tensor], trained: Mapping[str, Tensor], path: Path) -> None:
    """Raises CheckpointError, naming them, if the weights or their averages do not fit what is trained."""
    wanted = {f"{part}/{name}": p.shape for name, p in trained.items() for part in ("param", "ema")}
    held = {key: value.shape for key, value in tensors.items() if key.startswith(("param/", "ema/"))}
    check_shapes(wanted, held, f"{path} does not fit this run", "remove it to start again")


def trim_log(path: Path, step: int) -> None:
    """Drops the log's rows of steps that will be done again."""
    if path.is_file():
        rows = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _of(line, step)]
        with write_whole(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in rows), encoding="utf-8")


def _of(line: str, step: int) -> bool:
    """Whether a line of the log is a row up to this step; not where a write was cut off."""
    try:
        row = parse_json(line)
    except ValueError:
        return False
    return isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] <= step


def write_log(path: Path, row: Mapping[str, Any], on_log: Callable[[Log], None] | None) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    logger.debug("%s: %s", path.parent, row)
    if on_log is not None:
        on_log(row)
