"""The road from examples to an operator: encode, find a start, train, keep the best, write the operator's folder.

RUN is an operator folder from the first validation's end on; beside the operator it holds what the run needs to go on
(checkpoint.safetensors, config.json, log.jsonl, run.json) and, where pictures were encoded here, shards/.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data import Folder, Shards
from pops.data.encode import encode_folder
from pops.data.shards import ABOUT
from pops.errors import ConfigError, ensure
from pops.expression.nodes import KEYS
from pops.files import expanded, read_json_object, shown, write_whole
from pops.magicmix.spec import MIX
from pops.operators.checkpoint import SPEC_FILE
from pops.operators.spec import OperatorSpec, Role, TrainingRecipe
from pops.training import parallel
from pops.training.checkpoints import CHECKPOINT
from pops.training.config import TrainConfig
from pops.training.data import seed_of
from pops.training.defaults import config_for
from pops.training.samples import (
    ShardSamples,
    average_of,
    list_role,
    plain_operands,
    roles_of,
    some_of,
    usable_rows,
)
from pops.training.spec import TrainSpec
from pops.training.start import Start, find_start
from pops.training.trackers import Tracked, check_tracker

if TYPE_CHECKING:
    from pops.models.model import Model
    from pops.progress import OnNote, OnProgress

logger = logging.getLogger("pops.training")

RUN_FILE, SHARDS = "run.json", "shards"
HELD = 10  # of every so many training examples, one is held out if there is no validation split
FEWEST_HELD = 2
LEARNT, PARTLY = 0.9, 0.6  # shares of held-out examples on which the average is beaten
USED = 0.8  # share on which one constant guess must be beaten, or else the operands are not used
WHY = "the results may not follow from these operands, or more examples are needed"
GUESSED = 4096  # training examples whose mean result is the constant guess


@dataclass(frozen=True)
class Prepared:
    """All that a run needs: what is trained, on which rows, and where it starts."""

    spec: TrainSpec
    operator: OperatorSpec
    config: TrainConfig
    start: Start
    train: ShardSamples
    held_out: ShardSamples
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learnt:
    """What came of a run: the operator's folder, the best validation's figures, and whether the relation is learnt."""

    folder: Path
    operator: OperatorSpec
    start: str
    steps: int
    samples: int
    held_out: int
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "operator": self.operator.name,
            "folder": str(self.folder),
            "roles": [{"name": role.name, "kind": role.kind} for role in self.operator.roles],
            "start": self.start,
            "steps": self.steps,
            "samples": self.samples,
            "held_out": self.held_out,
            "seconds": self.seconds,
            **{name: value for name, value in self.figures.items() if name not in ("score", "step")},
            "best_step": self.figures["step"],
            "learnt": is_learnt(self.figures),
            "verdict": self.verdict,
        }

    @property
    def verdict(self) -> str:
        """One sentence that says plainly how well it was learnt."""
        return verdict(self.figures, self.held_out)


def verdict(figures: Mapping[str, float], count: int) -> str:
    """Returns one sentence: the share of held-out examples on which the average is beaten, and what that means."""
    share, error = figures["beats_average"], figures["beats_average_error"]
    said = f"beats the average of its operands on {share:.0%} (± {error:.0%}) of {count} held-out examples"
    if figures["beats_constant"] < USED:
        nearer = (
            f"one constant guess, the mean of the training results, is nearer on {1 - figures['beats_constant']:.0%}"
        )
        return f"not learnt: it {said}, but {nearer}; {WHY}"
    if share >= LEARNT:
        return f"learnt: it {said}"
    if share >= PARTLY:
        return f"learnt in part: it {said}; more examples, or more alike ones, may help"
    return f"not learnt: it {said}; {WHY}"


def is_learnt(figures: Mapping[str, float]) -> bool:
    """Returns whether the relation was learnt: the average is beaten nearly always, and so is one constant guess."""
    return figures["beats_average"] >= LEARNT and figures["beats_constant"] >= USED


# --- preparing -------------------------------------------------------------------------------------------------------


def open_examples(spec: TrainSpec, model: Model, room: Path, on_progress: OnProgress | None = None) -> Shards:
    """Opens the shards that the spec names, or encodes the folder of examples that it names into `room`."""
    path = expanded(spec.data)
    if (path / ABOUT).is_file():
        shards = Shards.open(path)
    else:
        if parallel.is_first():
            folder = Folder.read(path)
            encode_folder(folder, room, model.space, model=model.name, side=model.photo_side, on_progress=on_progress)
        parallel.wait_for_all()
        shards = Shards.open(room)
    shards.require_space(model.space.id, model.space.fingerprint)
    return shards


def split_rows(shards: Shards, spec: TrainSpec, *, captions: bool) -> tuple[list[int], list[int], list[str]]:
    """Returns the rows to train on and those held out for validation, and notes to the user.

    Without a validation split, every tenth training example is held out, by the seed.
    """
    name, notes = shown(shards.path), []
    train, held = (usable_rows(shards, split, captions=captions) for split in ("train", "validation"))
    unusable = len(shards.rows("train")) - len(train)
    if unusable and not captions:
        notes.append(f"{unusable} training examples have no picture of their result and are left out")
    ensure(len(train) > 0, f"{name} has no training examples with a result; check the column split")
    if len(held) < FEWEST_HELD:
        import torch

        many = max(FEWEST_HELD, len(train) // HELD)
        told = f"{name} has {len(train)} training examples and no validation split; at least {many + 1} are needed"
        ensure(len(train) > many, told)
        gen = torch.Generator().manual_seed(seed_of(0, "validation", 0))
        chosen = set(torch.randperm(len(train), generator=gen)[:many].tolist())
        held = [row for i, row in enumerate(train) if i in chosen]
        train = [row for i, row in enumerate(train) if i not in chosen]
        notes.append(f"no validation split: {many} of the training examples are held out for it")
    return some_of(train, spec.shots, int(spec.settings.get("seed", 0))), held, notes


def prepare(
    spec: TrainSpec, model: Model, shards: Shards, *, start: str | None = None, config: TrainConfig | None = None
) -> Prepared:
    """Decides what a run trains. start, config: what an earlier beginning of the same run decided."""
    captions = _has_captions_only(shards)
    train, held, notes = split_rows(shards, spec, captions=captions)
    of_list = list_role(shards, [*train, *held])
    samples, held_out = (ShardSamples(shards, rows, ragged=of_list is not None) for rows in (train, held))
    found = find_start(start or spec.start, model, samples)
    if found.rank == 0 and "rank" not in spec.settings:
        notes.append(f"{found.name} is a whole prior of its own: all of it is trained")
    config = config or config_for(spec, found, len(train), captions=captions)
    return Prepared(
        spec, _operator_spec(spec, shards, found, config, of_list), config, found, samples, held_out, tuple(notes)
    )


def _has_captions_only(shards: Shards) -> bool:
    """Whether the results are described by captions, and no picture shows one."""
    rows = shards.rows("train")
    if not len(rows):
        return False
    first = shards.batch(list(rows[: min(len(rows), 1024)]))
    return first.caption is not None and not bool(first.target_present.any())


def _operator_spec(
    spec: TrainSpec, shards: Shards, start: Start, config: TrainConfig, of_list: Role | None
) -> OperatorSpec:
    """Returns the spec of the operator: its roles from the data, its way of sampling from where it starts.

    of_list: the one role of a list of operands.
    """
    defaults: dict[str, Any] = {"guidance": 1.0}
    if start.spec is not None:
        of = start.spec
        defaults = {
            "guidance": of.guidance, "steps": of.steps, "partial_guidance": of.partial_guidance,
            "partial_steps": of.partial_steps,
        }  # fmt: skip
    if spec.guidance is not None:
        defaults["guidance"] = spec.guidance
    if spec.sampling_steps is not None:
        defaults["steps"] = spec.sampling_steps
    recipe = TrainingRecipe(
        config.drop_each, config.drop_together, config.loss, config.random_share, config.random_keeps_first
    )
    name = spec.operator_name
    told = f"an operator's name is one plain word of its own, got {shown(repr(name))}; name it: --name mirrored"
    ensure(name.isidentifier() and name not in (*KEYS, MIX.name), told)
    if of_list is not None:
        defaults |= {"repeat": True, "most": len(shards.images)}
    roles = roles_of(shards.roles) if of_list is None else (of_list,)
    return OperatorSpec(name, roles, summary=spec.summary, training=recipe, **defaults)


# --- the run ---------------------------------------------------------------------------------------------------------


def learn(
    spec: TrainSpec,
    model: Model,
    out: str | Path,
    *,
    resume: bool = False,
    tracker: str | None = None,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> Learnt:
    """Trains an operator as the spec says and writes its folder `out`; a finished run returns at once with resume.

    tracker: tensorboard, trackio or wandb, which is told of every row of the log. Raises ConfigError if `out` holds a
    run and resume is False, or if it holds another run.
    """
    from pops.training.grids import Grids
    from pops.training.trainer import export, train

    check_tracker(tracker)
    out, begun = Path(out), time.perf_counter()
    earlier = _earlier(spec, out, resume)
    shards = open_examples(spec, model, out / SHARDS, on_progress)
    ready = prepare(spec, model, shards, start=earlier.get("start"), config=earlier.get("config"))
    for note in ready.notes if on_note and parallel.is_first() else ():
        on_note(note)  # type: ignore[misc]
    validation = _validation(ready, model)
    config, stop = ready.config, _clock(spec.minutes)
    if not earlier and parallel.is_first():
        record = {"format": "pops.run", "version": 1, "spec": spec.to_data(), "start": ready.start.name}
        record |= {"tried": dict(ready.start.tried), "config": asdict(config)}
        with write_whole(out / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    path = expanded(spec.data)
    pictures = None if (path / ABOUT).is_file() else Folder.read(path)
    grids = Grids(model, ready.operator, ready.held_out, out, spec.grid, pictures)
    tracked = Tracked(tracker, ready.operator.name, out, asdict(config)) if tracker and parallel.is_first() else None
    latest: dict[str, Any] = {}

    def on_log(row: Mapping[str, Any]) -> None:
        latest.update(row.get("validation", {}))
        if tracked:
            tracked.log(row)
        if on_progress:
            shown_figures = f", beats average {latest['beats_average']:.0%}" if latest else ""
            on_progress(int(row["step"]), config.steps, f"training {ready.operator.name}{shown_figures}")

    trained = train(
        config, ready.train, model.prior, out, resume=resume, on_log=on_log, start=ready.start.weights,
        validate=validation, time_is_up=stop, on_best=lambda prior, step: grids.draw(prior, step, last=False),
    )  # fmt: skip
    if tracked:
        tracked.finish()
    about = {
        "data": expanded(spec.data).absolute().name, "model": model.name, "samples": len(ready.train),
        "start": ready.start.name, "validation": dict(trained.best), "held_out": len(ready.held_out),
    }  # fmt: skip
    if parallel.is_first():
        export(trained, out, base=model.prior, space=model.space.id, spec=ready.operator, provenance=about)
        grids.draw(trained.prior, int(trained.best["step"]), last=True, on_note=on_note)
    parallel.wait_for_all()
    seconds = time.perf_counter() - begun
    return Learnt(
        out,
        ready.operator,
        ready.start.name,
        trained.step,
        len(ready.train),
        len(ready.held_out),
        seconds,
        trained.best,
    )


def _validation(ready: Prepared, model: Model) -> Any:
    """Returns the validation on the held-out rows, at most as many as one needs."""
    from pops.training.validation import MOST, Validation

    shards = ready.held_out.shards
    rows = ready.held_out.rows[:MOST]
    held = ShardSamples(shards, rows.tolist(), ragged=ready.held_out.ragged)
    batch = shards.batch(rows)
    train = shards.batch(ready.train.rows[:GUESSED])
    truth, known = batch.target, train.target
    if ready.config.loss == "instruct" and batch.caption is not None and train.caption is not None:
        truth, known = batch.caption, train.caption
    return Validation(held, average_of(plain_operands(shards, batch)), model.prior, truth, known.mean(dim=0))


def _clock(minutes: float | None) -> Callable[[], bool] | None:
    if minutes is None:
        return None
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() >= end


def _earlier(spec: TrainSpec, out: Path, resume: bool) -> dict[str, Any]:
    """Returns start and config of the run that `out` holds; empty if it holds none. ConfigError as `learn` says."""
    name = shown(out)
    if not (out / RUN_FILE).is_file():
        taken = (out / CHECKPOINT).is_file() or (out / SPEC_FILE).is_file()
        ensure(not taken, f"{name} holds an operator or a run of another kind; choose another folder (-o)")
        others = (
            [p.name for p in out.iterdir() if p.name != SHARDS and not p.name.startswith(".")] if out.is_dir() else []
        )
        ensure(
            not others, f"{name} holds other files, such as {shown(others[0] if others else '')}; choose a new folder"
        )
        return {}
    ensure(resume, f"{name} holds a run; add --resume to go on with it, or choose another folder (-o)")
    record = read_json_object(out / RUN_FILE, ConfigError, "choose another folder (-o)")
    try:
        mine, theirs = spec.to_data(), dict(record["spec"])
        config = TrainConfig(**record["config"])
        start = str(record["start"])
    except (KeyError, TypeError) as e:
        raise ConfigError(f"{shown(out / RUN_FILE)} is damaged ({e!r}); choose another folder (-o)") from e
    free = ("minutes", "summary", "grid")
    differing = [k for k in {**mine, **theirs} if k not in free and mine.get(k) != theirs.get(k)]
    listed = "; ".join(f"{k}: {mine.get(k)!r}, not {theirs.get(k)!r}" for k in differing)
    ensure(not differing, f"{name} holds another run ({listed}); choose another folder (-o)")
    return {"start": start, "config": config}
