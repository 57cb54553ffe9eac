"""What a run would cost, told before it: samples, trained parameters, memory, and time by a few measured steps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pops.data import Folder, Shards
from pops.data.shards import ABOUT
from pops.errors import ensure
from pops.files import expanded, shown
from pops.operators.spec import Role
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData
from pops.training.defaults import config_for
from pops.training.samples import roles_of
from pops.training.spec import NEAREST, TrainSpec
from pops.training.start import Start, find_start

if TYPE_CHECKING:
    from pops.models.model import Model

STEPS = 3  # measured, after one that is not
ENCODED = 16  # pictures that are encoded to measure
FIRST = 1000  # examples that are looked at
SAMPLES, WORDS, SLOTS = 64, 4, 10  # of the random samples; tokens of a text; slots of a sample, generously
KEPT = 20  # numbers kept for the backward pass for each slot, block and number of its width
FACTOR = 6  # float32 numbers kept for each trained one: itself, gradient, average, the best average, two of AdamW


@dataclass(frozen=True)
class Rehearsal:
    """The plan of a run. seconds: of encoding and of all steps, measured here and now; memory: bytes of training."""

    operator: str
    roles: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    start: str
    config: TrainConfig
    trained: int
    all: int
    memory: int
    step_seconds: float
    encoding_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, if it is not stopped early."""
        return self.encoding_seconds + self.step_seconds * self.config.steps

    def to_data(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "operator": self.operator,
            "roles": [{"name": name, "kind": kind} for name, kind in self.roles],
            "counts": dict(self.counts),
            "start": self.start,
            "steps": self.config.steps,
            "batch_size": self.config.batch_size,
            "parameters_trained": self.trained,
            "parameters": self.all,
            "memory_bytes": self.memory,
            "step_seconds": self.step_seconds,
            "encoding_seconds": self.encoding_seconds,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        roles = ", ".join(f"{name} ({kind})" for name, kind in self.roles)
        counts = ", ".join(f"{n} {split}" for split, n in self.counts.items())
        how = f"rank {self.config.rank}" if self.config.rank else "whole prior"
        lines = [
            f"operator    {self.operator}: {roles}",
            f"samples     {counts}",
            f"start       {self.start}",
            f"parameters  {self.trained:,} trained ({how}) of {self.all:,}",
            f"memory      {self.memory / 2**20:,.0f} MB beside the model's own",
            f"time        {self.seconds:,.0f} s at most: encoding {self.encoding_seconds:,.0f} s, "
            f"{self.config.steps} steps of {self.step_seconds:.3f} s",
        ]
        return "\n".join(lines)


def rehearse(spec: TrainSpec, model: Model) -> Rehearsal:
    """Measures a few steps of the run that the spec asks for, on random embeddings of its roles; writes nothing."""
    path, encoding = expanded(spec.data), 0.0
    read: Folder | Shards
    if (path / ABOUT).is_file():
        read = Shards.open(path)
        read.require_space(model.space.id, model.space.fingerprint)
        captions = read.about.counts["train"] > 0 and _captions_only(read)
    else:
        read = Folder.read(path)
        encoding = _encoding_seconds(read, model)
        captions = all(row.target is None for row in read.rows("train")[:FIRST])
    roles = roles_of(read.roles)
    train_count = min(read.counts["train"], spec.shots or read.counts["train"])
    ensure(train_count > 0, f"{shown(path)} has no training examples; check the column split")
    data = _random_samples(roles, model)
    start = find_start(spec.start, model, data)
    config = config_for(spec, start, train_count, captions=captions)
    trained, whole, seconds = _measured(config, data, start, model)
    activations = config.batch_size // config.accumulate * SLOTS * model.prior.config.width * model.prior.config.layers
    memory = 4 * (FACTOR * trained + whole + KEPT * activations)
    name = f"nearest of {', '.join(start.tried)}" if spec.start == NEAREST and start.tried else start.name
    counts = {**read.counts, "train": train_count}
    shapes = tuple((role.name, role.kind) for role in roles)
    return Rehearsal(spec.operator_name, shapes, counts, name, config, trained, whole, memory, seconds, encoding)


def _random_samples(roles: Sequence[Role], model: Model) -> EmbeddingData:
    """Returns a few samples of these roles, of random embeddings; a text has WORDS tokens."""
    import torch

    gen = torch.Generator().manual_seed(0)
    dim, images = model.prior.dim, sum(role.kind == "image" for role in roles)
    operands = torch.randn(SAMPLES, images, dim, generator=gen) if images else None
    words = hidden = length = None
    if images < len(roles):
        words, hidden = torch.zeros(SAMPLES, 1, dtype=torch.int64), torch.randn(1, WORDS, dim, generator=gen)
        length = torch.tensor([WORDS])
    target = torch.randn(SAMPLES, dim, generator=gen)
    return EmbeddingData(target, operands, words, words, hidden, length, torch.randn(1, dim, generator=gen))


def _encoding_seconds(folder: Folder, model: Model) -> float:
    """Returns how long all pictures of a folder take to encode, by a few."""
    from pops.images import load_photo

    photos = [p for row in folder.rows("train")[:ENCODED] for p in (*row.images.values(), row.target) if p is not None]
    if not photos:
        return 0.0
    model.space.encode_images([load_photo(photos[0], size=model.photo_side)])  # reads the tower
    begun = time.perf_counter()
    model.space.encode_images([load_photo(p, size=model.photo_side) for p in photos[:ENCODED]])
    each = (time.perf_counter() - begun) / len(photos[:ENCODED])
    first = folder.rows()[:FIRST]
    pictures = len({p for row in first for p in (*row.images.values(), row.target) if p is not None})
    return each * pictures * len(folder) / len(first)


def _captions_only(shards: Shards) -> bool:
    first = shards.batch(list(shards.rows("train")[:FIRST]))
    return not bool(first.target_present.any())


def _measured(config: TrainConfig, data: EmbeddingData, start: Start, model: Model) -> tuple[int, int, float]:
    """Returns how many parameters are trained, how many there are, and seconds of a step."""
    from pops.training.trainable import Trainable
    from pops.training.trainer import train

    trained = sum(p.numel() for p in Trainable(model.prior, config, start.weights).trained().values())
    whole = sum(_size(shape) for shape in model.prior.config.shapes.values())
    short = config.changed(steps=STEPS + 1, eval_every=0, patience=0, warmup=0, log_every=1, save_every=STEPS + 1)
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pops-rehearsal-") as out:
        train(
            short, data, model.prior, out, resume=False, start=start.weights,
            on_log=lambda row: times.append(time.perf_counter()),
        )  # fmt: skip
    return trained, whole, (times[-1] - times[0]) / (len(times) - 1)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
