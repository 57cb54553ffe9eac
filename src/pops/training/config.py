"""The settings of a training run, one frozen value: saved with its checkpoints, compared on resuming. No torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pops.errors import ConfigError, ensure, shown, suggest
from pops.files import parse_json
from pops.operators.spec import BUILTIN, LOSSES, OperatorSpec

Schedule = Literal["constant", "cosine", "flat"]
SCHEDULES = ("constant", "cosine", "flat")
PRECISIONS = ("fp32", "bf16")
# Fields that may differ when a run is resumed.
MAY_CHANGE = ("save_every", "log_every")
WEIGHTS = ("weight_decay", "text_weight", "cosine_weight", "contrastive_weight")  # of terms of the loss


@dataclass(frozen=True)
class TrainConfig:
    """One run. Probabilities are per sample, in [0, 1]; numbers of samples count over all processes.

    Raises ConfigError, naming the field and the value.
    """

    operator: str = "texturing"  # "prior" for the base prior
    steps: int = 10_000  # optimizer steps
    batch_size: int = 256  # samples per step
    accumulate: int = 1  # a batch is computed in so many parts, whose gradients add up to the whole batch's
    lr: float = 5e-4  # AdamW's, at its peak
    schedule: str = "cosine"  # constant | cosine (to 0) | flat (then linear to 0 over the last decay_share)
    warmup: int = 100  # steps from 0 to lr, linear
    decay_share: float = 0.4  # of all steps, for schedule "flat"
    weight_decay: float = 0.0
    grad_clip: float = 1.0  # largest norm of the gradient; 0 for none
    ema: float = 0.999  # decay of the averaged weights, reached slowly: min(ema, (1 + step) / (10 + step))
    seed: int = 0
    precision: str = "fp32"  # or "bf16": autocast
    rank: int = 0  # of the adapter; 0 trains the whole prior
    adapt_time: bool = False  # with an adapter: train the time embedding, too
    blocks: int = 0  # train the first so many blocks and what lies before them; 0 trains all
    loss: str = "mse"  # or "instruct"
    text_weight: float = 10.0  # of the cosine term of loss "instruct"
    cosine_weight: float = 0.0  # of 1 - cosine to the target, added to the loss
    contrastive_weight: float = 0.0  # of the cross-entropy of finding its own target among the batch's, added
    pure_noise: float = 0.0  # share of samples whose noise hides the target wholly: what sampling begins with
    drop_each: float = 0.0  # each operand, independently, becomes a zero token
    drop_together: float = 0.0  # all operands (the base prior: the caption) become zero tokens
    random_share: float = 0.0  # a random image becomes the target, the operands become zero tokens
    random_keeps_first: float = 0.0  # of random_share: operand 0 becomes that image
    operand_noise: float = 0.0  # standard deviation of Gaussian noise on image operands, standardised space
    any_order: bool = False  # image operands are shuffled within each sample, so that their order says nothing
    blend_share: float = 0.0  # share of samples that become a weighted mean of two, operands and target alike
    save_every: int = 1000  # steps
    log_every: int = 50  # steps
    eval_every: int = 0  # steps between validations; 0 for none. The best weights are kept
    patience: int = 0  # stop after so many validations without a better one; 0 never stops early

    def __post_init__(self) -> None:
        for each in fields(self):
            value, kind = getattr(self, each.name), type(each.default)
            right = type(value) is kind or (kind is float and type(value) is int)
            known = {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}[kind]
            ensure(right, f"{each.name} must be {known}, got {shown(value, 40)}")
            finite = kind not in (int, float) or abs(value) < 1e300  # not NaN, either
            ensure(finite, f"{each.name} must be finite, got {shown(value, 40)}")
        for name in ("steps", "batch_size", "accumulate", "save_every", "log_every"):
            ensure(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        counts = ("warmup", "rank", "blocks", "seed", "eval_every", "patience")
        for name in (*counts, *WEIGHTS, "grad_clip", "operand_noise"):
            ensure(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        shares = ("drop_each", "drop_together", "random_share", "random_keeps_first", "pure_noise", "blend_share")
        for name in ("decay_share", *shares):
            ensure(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name, choices in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("loss", LOSSES)):
            value = getattr(self, name)
            told = f"unknown {name} {value!r}{suggest(value, choices)}; choose from {', '.join(choices)}"
            ensure(value in choices, told)
        whole = self.batch_size % self.accumulate == 0
        ensure(whole, f"batch_size {self.batch_size} must divide by accumulate, got {self.accumulate}")
        ensure(self.lr > 0, f"lr must be positive, got {self.lr}")
        ensure(0 <= self.ema < 1, f"ema must be in [0, 1), got {self.ema}")
        ensure(bool(self.operator), "operator must be a name, or 'prior' for the base prior")
        if self.operator == "prior":
            ensure(self.rank == 0, f"the base prior is trained whole: rank must be 0, got {self.rank}")
            ensure(
                self.loss == "mse"
                and not (self.drop_each or self.random_share or self.operand_noise or self.blend_share),
                "the base prior has no operands: use loss 'mse', and drop_together for its captions",
            )

    @classmethod
    def of(cls, spec: OperatorSpec | str, **changes: float | str) -> TrainConfig:
        """Returns the settings that `spec` (or the built-in of that name, or "prior") asks for, with these changes."""
        settings: dict[str, Any]
        if spec == "prior":
            settings = {"operator": "prior", "drop_together": 0.1, **changes}
            return cls(**settings)
        if isinstance(spec, str):
            hint = f"{suggest(spec, BUILTIN)}; choose from {', '.join(BUILTIN)}, or pass an OperatorSpec"
            ensure(spec in BUILTIN, f"unknown operator {spec!r}{hint}")
            spec = BUILTIN[spec]
        settings = {"operator": spec.name, **asdict(spec.training), **changes}
        return cls(**settings)

    def changed(self, **changes: float | str) -> TrainConfig:
        """Returns a copy with these fields changed."""
        settings: dict[str, Any] = {**changes}
        return replace(self, **settings)

    def lr_at(self, step: int) -> float:
        """Returns the learning rate of step 0 .. steps - 1."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            done = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
            return self.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if self.schedule == "flat" and self.decay_share > 0:
            left = (self.steps - step) / (self.steps * self.decay_share)
            return self.lr * warm * min(1.0, left)
        return self.lr * warm

    def to_json(self) -> str:
        """Returns one JSON object, one line per field."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "config.json") -> TrainConfig:
        """Reads what `to_json` returned; ConfigError, naming `where`, for anything else."""
        try:
            data = parse_json(text)
            if not isinstance(data, dict):
                raise ValueError("no JSON object")
            unknown = sorted(set(data) - {f.name for f in fields(cls)})
            ensure(not unknown, f"{where}: unknown field {', '.join(unknown)}; it comes from another version")
            return cls(**data)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where} is not a training config ({shown(error)}); start the run again") from error

    def differences(self, other: TrainConfig) -> list[str]:
        """Lists the fields in which `other` is another run, as "name: mine, not theirs"."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{k}: {mine[k]!r}, not {theirs[k]!r}" for k in mine if k not in MAY_CHANGE and mine[k] != theirs[k]]
