"""Trackers of runs, by accelerate: TensorBoard, trackio, Weights & Biases. Each is a package of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, MissingExtra, ensure, suggest

EXTRA = "tensorboard"
TRACKERS = (EXTRA, "trackio", "wandb")  # each the name of its package
PROJECT = "pops"


def check_tracker(name: str | None) -> None:
    """Raises ConfigError for an unknown tracker, MissingExtra for one that is not installed."""
    if name is None:
        return
    told = f"unknown tracker {name!r}{suggest(name, TRACKERS)}; choose from {', '.join(TRACKERS)}"
    ensure(name in TRACKERS, told, ConfigError)
    if find_spec(name) is None:
        ensure(name == EXTRA, f"{name} is not installed; run: pip install {name}")
        raise MissingExtra(name, EXTRA)


class Tracked:
    """A run in a tracker, which is told of its settings and of every row of its log.

    TensorBoard writes into the run's folder, trackio and wandb where their own settings say.
    """

    def __init__(self, name: str, operator: str, out: Path, settings: Mapping[str, Any]) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        check_tracker(name)
        PartialState()  # without it accelerate's trackers cannot log
        kind = LOGGER_TYPE_TO_CLASS[name]
        if kind.requires_logging_directory:
            self.tracker = kind(operator, logging_dir=str(out / name))
        else:
            self.tracker = kind(PROJECT, name=operator)
        self.tracker.start()
        plain = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in settings.items()}
        self.tracker.store_init_configuration(plain)

    def log(self, row: Mapping[str, Any]) -> None:
        """Tells of a row of the log: figures of training, or of a validation."""
        validation = row.get("validation")
        prefix, figures = ("validation/", validation) if validation else ("train/", row)
        self.tracker.log({f"{prefix}{k}": v for k, v in figures.items() if k != "step"}, step=int(row["step"]))

    def finish(self) -> None:
        """Closes the run."""
        self.tracker.finish()
