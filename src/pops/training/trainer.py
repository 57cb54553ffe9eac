"""The training loop of priors (accelerate), on precomputed embeddings.

Every random number of step s comes from a generator seeded with (seed, s), so the state of a run is its weights, their
average, the optimizer and a step number: a resumed run equals an uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pops.errors import CheckpointError, ConfigError, PopsError, ensure
from pops.files import keep_before, parse_json, write_whole
from pops.operators.checkpoint import put_on, save_operator
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.prior.noise import add_noise, alphas_cumprod
from pops.prior.transformer import PriorModel
from pops.standardise import ClipStats
from pops.tensors import opened, read_tensors, write_tensors
from pops.training import losses
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData, Order, make_batch, seed_of
from pops.training.trainable import Trainable, new_prior, save_prior, weights_of
from pops.weights import check_shapes

__all__ = ["Trained", "export", "load_trained", "new_prior", "save_prior", "train", "train_prior"]

logger = logging.getLogger("pops.training")

CHECKPOINT, CONFIG, LOG = "checkpoint.safetensors", "config.json", "log.jsonl"
BEFORE = "before.safetensors"  # the checkpoint before it, for when the newest is damaged
Log = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """The state of a run: `prior` with the averaged weights, and `weights` as an operator folder holds them."""

    config: TrainConfig
    step: int
    prior: PriorModel
    weights: dict[str, Tensor]


# -- checkpoints -----------------------------------------------------------------------------------


def _save(path: Path, config: TrainConfig, step: int, marks: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:

    meta = {"format": "pops.training", "version": "1", "config": config.to_json(), "step": str(step), **marks}
    with write_whole(path / CONFIG) as temporary:
        temporary.write_text(config.to_json(), encoding="utf-8")
    with suppress(PopsError), opened(path / CHECKPOINT):  # one that is damaged takes no other's place
        keep_before(path / CHECKPOINT, path / BEFORE)
    with write_whole(path / CHECKPOINT) as temporary:
        write_tensors(temporary, {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, meta)


def _there(out: Path) -> bool:
    """Whether a run's folder holds a checkpoint."""
    return (out / CHECKPOINT).is_file() or (out / BEFORE).is_file()


def _read_latest(out: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads a run's newest checkpoint, or the one before it if the newest is damaged, as when the power failed."""
    try:
        return _read(out / CHECKPOINT)
    except CheckpointError as error:
        if not (out / BEFORE).is_file():
            raise
        logger.warning("%s; the checkpoint before it is taken", error)
        return _read(out / BEFORE)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    again = "remove it to start again"
    tensors, meta = read_tensors(path, CheckpointError, again)
    ours = meta.get("format") == "pops.training" and "config" in meta and meta.get("step", "").isdecimal()
    ensure(ours, f"{path} is not a checkpoint of a training run; {again}", CheckpointError)
    return meta, tensors


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _optimizer_state(optimizer: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"adam/{name}/{k}": v for i, name in enumerate(names) for k, v in state.get(i, {}).items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, names: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    state = {i: _part(tensors, f"adam/{name}/") for i, name in enumerate(names)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})


def load_trained(out: str | Path, base: PriorModel) -> Trained:
    """Loads a run's latest checkpoint from its folder, as `train` returns it; CheckpointError if there is none."""
    path = Path(out) / CHECKPOINT
    ensure(_there(Path(out)), f"no checkpoint in {out}; give a run's output folder, or train first", CheckpointError)
    meta, tensors = _read_latest(Path(out))
    same = meta.get("base") == base.fingerprint
    ensure(same, f"{path} was trained from another base prior; load it with its own", CheckpointError)
    config = TrainConfig.from_json(meta["config"], where=str(path))
    return _trained(config, int(meta["step"]), _part(tensors, "ema/"), base)


def _trained(config: TrainConfig, step: int, ema: Mapping[str, Tensor], base: PriorModel) -> Trained:
    weights = weights_of({n: v.detach().cpu() for n, v in ema.items()}, base, config)
    return Trained(config, step, put_on(base, weights), weights)


# -- the loop --------------------------------------------------------------------------------------


def train(
    config: TrainConfig,
    data: EmbeddingData,
    base: PriorModel,
    out: str | Path,
    *,
    resume: bool = True,
    stop_at: int | None = None,
    on_log: Callable[[Log], None] | None = None,
) -> Trained:
    """Trains an operator, or the base itself (operator "prior"), from `base`; returns the averaged weights.

    Writes checkpoint.safetensors, config.json and log.jsonl to the folder `out`. resume: continues a run found there (a
    finished one returns at once); ConfigError if it is another run. stop_at: saves and returns after so many steps in
    all.
    """
    from accelerate import Accelerator

    out = Path(out)
    _check(config, data, base)

    # 1) The model, its average and its optimizer, on the device accelerate gives.
    accelerator = Accelerator()
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    ensure(config.batch_size % world == 0, f"batch_size {config.batch_size} must divide by the {world} processes")
    model = Trainable(base, config).to(device)
    trained = model.trained()
    optimizer = torch.optim.AdamW(
        list(trained.values()),
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    ema = {name: p.detach().clone() for name, p in trained.items()}
    marks = {"base": base.fingerprint, "data": data.fingerprint}

    # 2) Continue where an earlier run in this folder stopped.
    start = 0
    if resume and _there(out):
        meta, tensors = _read_latest(out)
        start = _same_run(config, marks, meta, out)
        _check_tensors(tensors, trained, out / CHECKPOINT)
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(tensors[f"param/{name}"])
                ema[name].copy_(tensors[f"ema/{name}"])
        _restore_optimizer(optimizer, trained, tensors)
        logger.info("resuming %s at step %d", out, start)
    out.mkdir(parents=True, exist_ok=True)
    wrapped, opt = accelerator.prepare(model, optimizer)

    def save(step: int) -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            values = {f"param/{n}": p for n, p in trained.items()} | {f"ema/{n}": v for n, v in ema.items()}
            _save(out, config, step, marks, values | _optimizer_state(optimizer, trained))

    # 3) The steps.
    end = config.steps if stop_at is None else min(config.steps, stop_at)
    order = Order(len(data), config.batch_size, config.seed)
    abar = alphas_cumprod(base.scheduler.train_steps).to(device)
    stats = ClipStats(base.stats.mean.to(device), base.stats.std.to(device))
    share = slice(rank * config.batch_size // world, (rank + 1) * config.batch_size // world)
    total, since, clock = torch.zeros((), device=device), 0, time.perf_counter()
    if accelerator.is_main_process:
        _trim_log(out / LOG, start)
    for step in range(start, end):
        # Standardised targets and conditions, noise at a uniform timestep, drawn from this step's own generator.
        gen = torch.Generator().manual_seed(seed_of(config.seed, "step", step))
        batch = make_batch(data, order.rows(step), config=config, stats=base.stats, gen=gen)
        t = torch.randint(len(abar), (config.batch_size,), generator=gen)
        noise = torch.randn(batch.target.shape, generator=gen)
        target, t, noise = (x[share].to(device, non_blocking=True) for x in (batch.target, t, noise))
        text = None if batch.text is None else batch.text[share].to(device, non_blocking=True)
        condition = batch.condition[share].to(device)

        # Predict x0; backpropagate the mean over items of the operator's own loss.
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            x0 = wrapped(add_noise(target, noise, t, abar), t, condition)
        loss = _loss(config, x0, target, text, stats).mean()
        accelerator.backward(loss)

        # Clip, step, average the weights.
        norm = accelerator.clip_grad_norm_(trained.values(), config.grad_clip) if config.grad_clip else None
        lr = config.lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        opt.step()
        opt.zero_grad()
        decay = min(config.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in trained.values()], 1 - decay)
        total, since = total + loss.detach(), since + 1

        # Log and save, unless the run has diverged.
        done = step + 1
        saving = done % config.save_every == 0 or done == end
        if saving or done % config.log_every == 0:
            finite = bool(total.isfinite()) and (norm is None or bool(norm.isfinite()))
            wrong = f"{out}: the loss is NaN or infinite at step {done}"
            ensure(finite, f"{wrong}; start again (resume=False) with a lower lr", PopsError)
        if done % config.log_every == 0 or done == end:
            mean = float(total) / since
            rate = since * config.batch_size / max(1e-9, time.perf_counter() - clock)
            row = {"step": done, "loss": mean, "lr": lr, "grad_norm": -1.0 if norm is None else float(norm)}
            row |= {"epoch": done * config.batch_size / len(data), "samples_per_s": round(rate, 1)}
            if accelerator.is_main_process:
                with (out / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                logger.debug("%s: %s", out, row)
                if on_log is not None:
                    on_log(row)
            total, since, clock = torch.zeros((), device=device), 0, time.perf_counter()
        if saving:
            save(done)
    accelerator.wait_for_everyone()
    return _trained(config, max(start, end), ema, base)


def _check(config: TrainConfig, data: EmbeddingData, base: PriorModel) -> None:
    ensure(data.dim == base.dim, f"the data are {data.dim} wide, the base prior takes {base.dim}")
    slots = (0 if data.operands is None else data.operands.shape[1]) + (
        0 if data.word_hidden is None or data.words is None else data.word_hidden.shape[1]
    )
    ensure(0 < slots <= base.slots, f"the data fill {slots} condition slots, the base prior has {base.slots}")
    if config.operator == "prior":
        ensure(
            data.operands is None and data.words is not None and data.text is not None,
            "the base prior is trained on captions: data with 'words' and 'text', without 'operands'",
        )
        ensure(
            data.empty is not None or not config.drop_together,
            "drop_together needs the encoding of the empty caption: write_tables(..., empty=(row, row))",
        )
    elif config.loss == "instruct":
        ensure(data.text is not None, "loss 'instruct' needs 'text' in the data: a text embedding per sample")


def _same_run(config: TrainConfig, marks: Mapping[str, str], meta: Mapping[str, str], out: Path) -> int:
    """Returns the step to continue from; ConfigError if the folder holds another run."""
    other = TrainConfig.from_json(meta["config"], where=str(out / CHECKPOINT))
    differing = config.differences(other)
    differing += [f"{k}: {v}, not {meta.get(k)}" for k, v in marks.items() if v != meta.get(k)]
    listed = "; ".join(differing)
    ensure(not differing, f"{out} holds another run ({listed}); choose another folder or resume=False", ConfigError)
    return int(meta["step"])


def _check_tensors(tensors: Mapping[str, Tensor], trained: Mapping[str, Tensor], path: Path) -> None:
    """Raises CheckpointError, naming them, if the weights or their averages do not fit what is trained."""
    wanted = {f"{part}/{name}": p.shape for name, p in trained.items() for part in ("param", "ema")}
    held = {key: value.shape for key, value in tensors.items() if key.startswith(("param/", "ema/"))}
    check_shapes(wanted, held, f"{path} does not fit this run", "remove it to start again")


def _trim_log(path: Path, step: int) -> None:
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


def _loss(config: TrainConfig, x0: Tensor, target: Tensor, text: Tensor | None, stats: ClipStats) -> Tensor:
    if config.loss == "instruct" and text is not None:
        return losses.instruct(x0, target, text, stats, weight=config.text_weight)
    return losses.mse(x0, target)


# -- the base prior, and export --------------------------------------------------------------------


def train_prior(
    config: TrainConfig,
    data: EmbeddingData,
    out: str | Path,
    *,
    layers: int = 4,
    heads: int = 4,
    head_dim: int = 64,
    clip: float = 5.0,
    resume: bool = True,
    stop_at: int | None = None,
    on_log: Callable[[Log], None] | None = None,
) -> Trained:
    """Trains a base prior (text to image embedding) from random weights, with the statistics of the data.

    config: TrainConfig.of("prior", ...). Save the result with `save_prior`.
    """
    ensure(config.operator == "prior", f"train_prior trains operator 'prior', got {config.operator!r}")
    base = new_prior(data.stats(), layers=layers, heads=heads, head_dim=head_dim, clip=clip, seed=config.seed)
    return train(config, data, base, out, resume=resume, stop_at=stop_at, on_log=on_log)


def export(
    trained: Trained,
    folder: str | Path,
    *,
    base: PriorModel,
    space: str,
    spec: OperatorSpec | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an operator folder from a run: operator.json and float16 weights, which `load_operator` reads.

    spec: the built-in one of the config's operator, unless given. space: the id of the space of the data.
    """
    if spec is None:
        name = trained.config.operator
        ensure(name in BUILTIN, f"{name!r} is no built-in operator; pass its spec")
        spec = BUILTIN[name]
    about = {"steps": trained.step, "config": json.loads(trained.config.to_json()), **(provenance or {})}
    return save_operator(folder, spec, trained.weights, base=base, space=space, provenance=about)
