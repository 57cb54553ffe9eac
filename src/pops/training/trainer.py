"""The training loop of priors (accelerate), on precomputed embeddings.

Every random number of step s comes from a generator seeded with (seed, s), so the state of a run is its weights, their
average, the optimizer and a step number: a resumed run equals an uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pops.errors import CheckpointError, ConfigError, PopsError, ensure
from pops.operators.checkpoint import put_on, save_operator
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.prior.noise import add_noise, alphas_cumprod
from pops.prior.transformer import PriorModel, fingerprint_of
from pops.standardise import ClipStats
from pops.training import checkpoints, losses, parallel
from pops.training.checkpoints import CHECKPOINT, LOG, Best, Log
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData, Order, Samples, make_batch, seed_of
from pops.training.trainable import Trainable, new_prior, save_prior, weights_of

__all__ = ["Trained", "export", "load_trained", "new_prior", "save_prior", "train", "train_prior"]

logger = logging.getLogger("pops.training")

OnBest = Callable[[PriorModel, int], None]  # (the prior with the best weights so far, the step)
Validate = Callable[[Trainable], Mapping[str, float]]  # with the averaged weights -> figures; "score": more is better


@dataclass(frozen=True, eq=False)
class Trained:
    """The state of a run: `prior` with the averaged weights, and `weights` as an operator folder holds them.

    best: the validation of these weights, the best one, and its "step"; empty for a run without validation.
    """

    config: TrainConfig
    step: int
    prior: PriorModel
    weights: dict[str, Tensor]
    best: Mapping[str, float] = field(default_factory=dict)


def load_trained(out: str | Path, base: PriorModel) -> Trained:
    """Loads a run's latest checkpoint from its folder, as `train` returns it; CheckpointError if there is none."""
    path = Path(out) / CHECKPOINT
    ensure(
        checkpoints.there(Path(out)),
        f"no checkpoint in {out}; give a run's output folder, or train first",
        CheckpointError,
    )
    meta, tensors = checkpoints.read_latest(Path(out))
    same = meta.get("base") == base.fingerprint
    ensure(same, f"{path} was trained from another base prior; load it with its own", CheckpointError)
    config = TrainConfig.from_json(meta["config"], where=str(path))
    return _trained(config, int(meta["step"]), checkpoints.part_of(tensors, "ema/"), base, Best.of(meta, tensors))


def _trained(config: TrainConfig, step: int, ema: Mapping[str, Tensor], base: PriorModel, best: Best) -> Trained:
    values = best.weights or ema
    weights = weights_of({n: v.detach().cpu() for n, v in values.items()}, base, config)
    return Trained(config, step, put_on(base, weights), weights, best.figures)


# -- the loop --------------------------------------------------------------------------------------


def train(
    config: TrainConfig,
    data: Samples,
    base: PriorModel,
    out: str | Path,
    *,
    resume: bool = True,
    stop_at: int | None = None,
    on_log: Callable[[Log], None] | None = None,
    start: Mapping[str, Tensor] | None = None,
    validate: Validate | None = None,
    on_best: OnBest | None = None,
    time_is_up: Callable[[], bool] | None = None,
) -> Trained:
    """Trains an operator, or the base itself (operator "prior"), from `base`; returns the averaged weights.

    Writes checkpoint.safetensors, config.json and log.jsonl to the folder `out`. resume: continues a run found there (a
    finished one returns at once); ConfigError if it is another run. stop_at: saves and returns after so many steps in
    all. start: the weights of an operator to begin with. validate: called every config.eval_every steps and at the
    beginning and the end; the best weights are kept and returned. on_best: told of each, in the first process.
    time_is_up: asked after each step; the run is then
    finished.
    """
    from accelerate import Accelerator

    out = Path(out)
    _check(config, data, base)

    # 1) The model, its average and its optimizer, on the device accelerate gives, whole or sharded.
    accelerator = Accelerator()
    parallel.prepare_sharding(accelerator)
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    _check_parts(config, world)
    ensure(not config.eval_every or validate is not None, "eval_every needs held-out samples: pass validate")
    model = Trainable(base, config, start).to(device)
    optimizer = torch.optim.AdamW(
        list(model.trained().values()),
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    wrapped, opt = accelerator.prepare(model, optimizer)
    model = accelerator.unwrap_model(wrapped)
    trained = model.trained()
    ema = {name: p.detach().clone() for name, p in trained.items()}
    marks = {"base": base.fingerprint, "data": data.fingerprint}
    if start:
        marks["start"] = fingerprint_of(start)
    best = Best()

    # 2) Continue where an earlier run in this folder stopped.
    first = 0
    if resume and checkpoints.there(out):
        meta, tensors = checkpoints.read_latest(out)
        first = _same_run(config, marks, meta, out)
        checkpoints.check_tensors(tensors, trained, out / CHECKPOINT)
        with torch.no_grad():
            for name, p in trained.items():
                parallel.put(p, tensors[f"param/{name}"])
                parallel.put(ema[name], tensors[f"ema/{name}"])
        checkpoints.restore_optimizer(optimizer, trained, tensors)
        parallel.adopt(optimizer, trained)
        best = Best.of(meta, tensors)
        best.weights = {name: parallel.like(trained[name], value) for name, value in best.weights.items()}
        logger.info("resuming %s at step %d", out, first)
    out.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        values = {f"param/{n}": p for n, p in trained.items()} | {f"ema/{n}": v for n, v in ema.items()}
        values |= {f"best/{n}": v for n, v in best.weights.items()} | checkpoints.optimizer_state(optimizer, trained)
        values = {name: parallel.whole(value) for name, value in values.items()}
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            checkpoints.save(out, config, step, marks | best.marks(), values)

    def look(step: int) -> None:
        assert validate is not None
        with _exchanged(trained, ema), torch.no_grad():
            parallel.forget_whole(model)
            figures = dict(validate(model))
        parallel.forget_whole(model)
        best.see(figures, step, ema, config.patience)
        if accelerator.is_main_process:
            checkpoints.write_log(out / LOG, {"step": step, "validation": figures}, on_log)
        if on_best and best.figures["step"] == step > 0:
            weights = weights_of({name: parallel.whole(value).cpu() for name, value in ema.items()}, base, config)
            if accelerator.is_main_process:
                on_best(put_on(base, weights), step)

    # 3) The steps.
    end = config.steps if stop_at is None else min(config.steps, stop_at)
    end = first if best.stopped else end
    order = Order(len(data), config.batch_size, config.seed)
    abar = alphas_cumprod(base.scheduler.train_steps).to(device)
    stats = ClipStats(base.stats.mean.to(device), base.stats.std.to(device))
    share = slice(rank * config.batch_size // world, (rank + 1) * config.batch_size // world)
    total, since, clock = torch.zeros((), device=device), 0, time.perf_counter()
    if accelerator.is_main_process:
        checkpoints.trim_log(out / LOG, first)
    if config.eval_every and first == 0:
        look(0)
    for step in range(first, end):
        # Standardised targets and conditions, noise at a uniform timestep, drawn from this step's own generator.
        gen = torch.Generator().manual_seed(seed_of(config.seed, "step", step))
        batch = make_batch(data, order.rows(step), config=config, stats=base.stats, gen=gen)
        t = torch.randint(len(abar), (config.batch_size,), generator=gen)
        noise = torch.randn(batch.target.shape, generator=gen)
        if config.pure_noise:
            hidden = torch.rand(config.batch_size, generator=gen) < config.pure_noise
            t = torch.where(hidden, len(abar) - 1, t)
        target, t, noise = (x[share].to(device, non_blocking=True) for x in (batch.target, t, noise))
        text = None if batch.text is None else batch.text[share].to(device, non_blocking=True)
        condition = batch.condition[share].to(device)

        # Predict x0; backpropagate the mean over items of the operator's own loss, part by part.
        noisy, loss = add_noise(target, noise, t, abar), torch.zeros((), device=device)
        size = len(target) // config.accumulate
        for part in (slice(i * size, (i + 1) * size) for i in range(config.accumulate)):
            last = part.stop == len(target)
            with nullcontext() if last else accelerator.no_sync(wrapped):
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    x0 = wrapped(noisy[part], t[part], condition[part])
                of_part = _loss(config, x0, target[part], None if text is None else text[part], stats).mean()
                accelerator.backward(of_part / config.accumulate)
            loss = loss + of_part.detach() / config.accumulate

        # Clip, step, average the weights.
        norm = accelerator.clip_grad_norm_(trained.values(), config.grad_clip) if config.grad_clip else None
        norm = None if norm is None else parallel.whole(norm)
        lr = config.lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        opt.step()
        opt.zero_grad()
        decay = min(config.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), [p.detach() for p in trained.values()], 1 - decay)
        total, since = total + loss, since + 1

        # Log, validate and save, unless the run has diverged.
        done = step + 1
        over = time_is_up is not None and parallel.agreed(time_is_up())
        looking = config.eval_every > 0 and (done % config.eval_every == 0 or done == config.steps or over)
        saving = done % config.save_every == 0 or done == end or over
        if saving or looking or done % config.log_every == 0:
            total = accelerator.reduce(total, "mean") if world > 1 else total
            finite = bool(total.isfinite()) and (norm is None or bool(norm.isfinite()))
            wrong = f"{out}: the loss is NaN or infinite at step {done}"
            ensure(finite, f"{wrong}; start again (resume=False) with a lower lr", PopsError)
        if done % config.log_every == 0 or done == end:
            mean = float(total) / since
            rate = since * config.batch_size / max(1e-9, time.perf_counter() - clock)
            row = {"step": done, "loss": mean, "lr": lr, "grad_norm": -1.0 if norm is None else float(norm)}
            row |= {"epoch": done * config.batch_size / len(data), "samples_per_s": round(rate, 1)}
            if accelerator.is_main_process:
                checkpoints.write_log(out / LOG, row, on_log)
            total, since, clock = torch.zeros((), device=device), 0, time.perf_counter()
        if looking:
            look(done)
        best.stopped = best.stopped or over
        if saving or best.stopped:
            save(done)
        if best.stopped:
            end = done
            break
    accelerator.wait_for_everyone()
    best.weights = {name: parallel.whole(value) for name, value in best.weights.items()}
    return _trained(config, max(first, end), {name: parallel.whole(v) for name, v in ema.items()}, base, best)


@contextmanager
def _exchanged(trained: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other values in the place of the trained ones, for a while."""
    kept = {name: p.detach().clone() for name, p in trained.items()}
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(others[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(kept[name])


def _check_parts(config: TrainConfig, world: int) -> None:
    """Checks that a batch can be computed in the parts that processes and accumulation make of it."""
    parts = f"the {world} processes" + (f" times accumulate {config.accumulate}" if config.accumulate > 1 else "")
    fits = config.batch_size % (world * config.accumulate) == 0
    ensure(fits, f"batch_size {config.batch_size} must divide by {parts}")
    told = "contrastive_weight compares the samples of a batch: it needs one process and accumulate 1"
    ensure(not config.contrastive_weight or world * config.accumulate == 1, told)


def _check(config: TrainConfig, samples: Samples, base: PriorModel) -> None:
    ensure(samples.dim == base.dim, f"the data are {samples.dim} wide, the base prior takes {base.dim}")
    ensure(len(samples) > 0, "there are no samples to train on")
    data = samples.part(torch.zeros(1, dtype=torch.int64))
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


def _loss(config: TrainConfig, x0: Tensor, target: Tensor, text: Tensor | None, stats: ClipStats) -> Tensor:
    """Returns the loss of each item: the operator's own, and what the config adds to it."""
    if config.loss == "instruct" and text is not None:
        loss = losses.instruct(x0, target, text, stats, weight=config.text_weight)
    else:
        loss = losses.mse(x0, target)
    if config.cosine_weight:
        loss = loss + config.cosine_weight * losses.cosine(x0, target, stats)
    if config.contrastive_weight:
        loss = loss + config.contrastive_weight * losses.contrastive(x0, target, stats)
    return loss


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
