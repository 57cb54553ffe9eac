"""An operator ready to run: its spec and its prior; operands' vectors in, result's vectors out.

Knows no photos and no text encoder: images arrive as embeddings, words as rows of hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.errors import ConfigError, EmbeddingError, OperandError, ensure
from pops.operators.spec import OperatorSpec
from pops.prior.condition import Condition
from pops.prior.samplers import SAMPLERS, check_sampler
from pops.prior.transformer import PriorModel, plain_denoiser
from pops.seeds import randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.engine import Engine, Request
    from pops.prior.samplers import Denoise, OnStep

TEXT_GUIDANCE, TEXT_STEPS = 4.0, 25  # Kandinsky 2.2's defaults for its prior


class Operator:
    """A spec and the weights that do it. Stateless: one instance may serve many requests."""

    def __init__(self, spec: OperatorSpec, prior: PriorModel) -> None:
        self.spec, self.prior = spec, prior

    def encode(self, jobs: Sequence[Sequence[Tensor | None]]) -> Condition:
        """Operands of B jobs => their condition. All jobs have the same number of operands.

        An image operand is an un-normalised embedding [D] (or [1, D]), standardised here; a text operand
        the rows [length, D] of the text encoder's last hidden state at the word's real tokens; None is
        missing: a zero token, which stays and stays unmasked.
        """
        import torch

        ensure(len(jobs) > 0, f"{self.spec.name}: no operands at all", OperandError)
        return Condition.cat([Condition(torch.cat(self._rows(job))[None]) for job in jobs])

    def sample(
        self,
        condition: Condition | Tensor,
        gens: Sequence[torch.Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "ancestral",
        full: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """One result an item: tokens [B, k, D] standardised, or a condition => un-normalised [B, D], CPU.

        `gens`: one CPU generator an item, drawing the initial noise and then each step's. steps and
        guidance are the spec's when left out; the guidance branch is zero tokens in as many slots. `full`:
        the slow forward.
        """
        task = self.task(condition, guidance)
        return sample(
            [task], gens, steps=self.spec.steps if steps is None else steps, sampler=sampler, full=full, on_step=on_step
        )

    def task(self, condition: Condition | Tensor, guidance: float | None = None) -> Task:
        """Rows of this operator for a batch; guidance as in `sample`, leading away from zero tokens."""
        c = condition if isinstance(condition, Condition) else Condition(condition)
        return Task(self.prior, c, self.spec.guidance if guidance is None else guidance)

    def _rows(self, operands: Sequence[Tensor | None]) -> list[Tensor]:
        """The slots [n, D] of each operand of one job."""
        import torch

        from pops.standardise import standardise

        roles, name, dim = self.spec.roles_for(len(operands)), self.spec.name, self.prior.dim
        used, rows = 0, []
        for position, (role, operand) in enumerate(zip(roles, operands, strict=True), start=1):
            row = (
                torch.zeros(1, dim)
                if operand is None
                else operand.detach().float().cpu().reshape(-1, operand.shape[-1])
            )
            where = f"{name}: operand {position} ({role.name})"
            ensure(row.shape[1] == dim, f"{where} is {row.shape[1]} wide, the prior takes {dim}", EmbeddingError)
            if operand is not None and role.kind == "image":
                ensure(len(row) == 1, f"{where} must be one embedding, got {len(row)}", OperandError)
                row = standardise(row, self.prior.stats)
            room = self.prior.slots - used
            if len(row) > room:
                raise OperandError(f"{where}: {len(row)} tokens, at most {room} fit; use fewer words")
            used += len(row)
            rows.append(row)
        return rows


class TextPrior:
    """The base prior from text to image embedding, in Kandinsky 2.2's form: text("...") of the language."""

    def __init__(self, prior: PriorModel) -> None:
        self.prior = prior

    def sample(
        self,
        hidden: Sequence[Tensor],
        embeds: Tensor,
        empty: tuple[Tensor, Tensor],
        gens: Sequence[torch.Generator],
        *,
        steps: int = TEXT_STEPS,
        guidance: float = TEXT_GUIDANCE,
        sampler: str = "ancestral",
        full: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Texts as encoded: B times hidden rows [length, D], embeds [B, D] => un-normalised [B, D], CPU.

        `empty`: hidden rows [length, D] and embedding [D] of "", which guidance leads away from. Other
        arguments as for `Operator.sample`.
        """
        task = self.task(hidden, embeds, empty, guidance)
        return sample([task], gens, steps=steps, sampler=sampler, full=full, on_step=on_step)

    def task(
        self,
        hidden: Sequence[Tensor],
        embeds: Tensor,
        empty: tuple[Tensor, Tensor],
        guidance: float = TEXT_GUIDANCE,
    ) -> Task:
        """Rows of the base prior for a batch; arguments as for `sample`."""
        rows, embed = empty
        texts = Condition.cat([Condition(h[None].float(), None, e[None].float()) for h, e in zip(hidden, embeds)])
        nothing = Condition(rows[None].float(), None, embed.reshape(1, -1).float())
        return Task(self.prior, texts, guidance, nothing)


@dataclass(frozen=True)
class Task:
    """What one batch computes for some of its rows. unconditional: one row, None for zero tokens (every operator)."""

    prior: PriorModel
    condition: Condition
    guidance: float
    unconditional: Condition | None = None

    def __len__(self) -> int:
        return len(self.condition)


def sample(
    tasks: Sequence[Task],
    gens: Sequence[torch.Generator],
    *,
    steps: int,
    sampler: str = "ancestral",
    full: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample for each row of the tasks, all in one batch: un-normalised [B, D], float32 on the CPU.

    The tasks' priors share one engine (a base prior and adapters on it). Random numbers come from `gens`, one CPU
    generator a row: the initial noise, then what the sampler draws. `full`: all 81 slots each step, the slow twin.
    """
    import torch

    from pops.standardise import unstandardise

    check_sampler(sampler)
    for task in tasks:
        ensure(task.guidance >= 0, f"guidance must not be negative, got {task.guidance}", ConfigError)
    rows = sum(len(task) for task in tasks)
    ensure(len(gens) == rows, f"{rows} items need as many generators, got {len(gens)}", ConfigError)
    prior = tasks[0].prior
    with torch.no_grad():
        z = randn_items((prior.dim,), gens).to(prior.device)
        denoise = _slowly(tasks) if full else _engine(tasks).denoiser([_request(task) for task in tasks])
        z = SAMPLERS[sampler](denoise, z, gens, steps=steps, scheduler=prior.scheduler, on_step=on_step)
        return unstandardise(z.float().cpu(), prior.stats)


def _engine(tasks: Sequence[Task]) -> Engine:
    engine = tasks[0].prior.engine
    same = all(task.prior.engine is engine for task in tasks)
    ensure(same, "operators of different weights cannot share a batch; sample them one after another", ConfigError)
    return engine


def _request(task: Task) -> Request:
    from pops.prior.engine import Request

    return Request(task.condition, task.guidance, task.unconditional, task.prior.change)


def _slowly(tasks: Sequence[Task]) -> Denoise:
    """Every task's rows on their own, by the public method."""
    import torch

    parts = []
    for task in tasks:
        c = task.condition.to(task.prior.device)
        away = c.zeros() if task.unconditional is None else task.unconditional.to(task.prior.device).expand(len(c))
        parts.append(plain_denoiser(task.prior, c, unconditional=away, guidance=task.guidance))
    sizes = [len(task) for task in tasks]

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        return torch.cat([part(*zt) for part, zt in zip(parts, zip(z.split(sizes), t.split(sizes)))])

    return denoise
