"""What a run is like unless the spec says otherwise, by the size of its data; how it was chosen: docs/training.md."""

from __future__ import annotations

from typing import Any

from pops.errors import ensure
from pops.training.config import TrainConfig
from pops.training.spec import TrainSpec
from pops.training.start import Start

RANK = 16
BATCH = 64
EPOCHS = 160  # over a small folder
FEWEST, MOST = 300, 3000  # steps
EVALS = 16  # validations of a run


def config_for(
    spec: TrainSpec, start: Start, count: int, *, captions: bool, most_steps: int | None = None
) -> TrainConfig:
    """Returns the settings of a run on `count` samples. most_steps: as many as there is time for.

    captions: the samples have captions and no pictures of their results, so loss "instruct" is meant.
    """
    given = dict(spec.settings)
    batch = int(given.get("batch_size", BATCH))
    steps = max(FEWEST, min(MOST, EPOCHS * count // batch))
    if most_steps is not None:
        steps = max(1, min(steps, most_steps))
    steps = int(given.get("steps", steps))
    rank = RANK if start.rank is None else start.rank
    every = max(1, steps // EVALS)
    chosen: dict[str, Any] = {
        "operator": spec.operator_name,
        "steps": steps,
        "batch_size": batch,
        "lr": 4e-4 if rank else 1e-5,
        "warmup": min(50, steps // 10),
        "ema": 0.99,
        "rank": rank,
        "adapt_time": _adapts_time(start),
        "loss": "instruct" if captions else "mse",
        "operand_noise": 0.2,
        "blend_share": 0.7 if not captions else 0.0,
        "drop_each": 0.05,
        "drop_together": 0.05,
        "pure_noise": 0.7,
        "save_every": max(1, steps // 8),
        "log_every": max(1, min(10, steps)),
        "eval_every": every,
        "patience": 6,
    }
    config = TrainConfig(**{**chosen, **given})
    ensure(config.eval_every >= 1, "eval_every must be at least 1: the verdict comes from validation")
    return config


def _adapts_time(start: Start) -> bool:
    return any(name.startswith("time_embedding") for name in start.weights or {})
