"""An operator ready to run: its spec and its prior; operands' vectors in, results' vectors out.

Knows no photos and no text encoder: images arrive as embeddings, words as the text encoder's hidden states.

Strength: a result r becomes o + strength (r - o), where the origin o is the mean of the image operands: 0 is that mean,
1 the result itself, and more carries on in its direction. In one step an operator gives the mean of all right answers,
which lies nearer to the operands than any of them. Standardised or not, the outcome is the same: the weights' sum is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, EmbeddingError, OperandError, ensure
from pops.operators.spec import OperatorSpec
from pops.prior.condition import Condition
from pops.prior.samplers import SAMPLERS, check_sampler
from pops.prior.transformer import PriorModel, plain_denoiser
from pops.seeds import randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.operators.model_card import Card
    from pops.prior.engine import Engine, Request
    from pops.prior.samplers import Denoise
    from pops.progress import OnStep

TEXT_GUIDANCE, TEXT_STEPS = 4.0, 25  # Kandinsky 2.2's defaults for its prior


class Operator:
    """A spec and a prior that computes it. Stateless: one instance may serve many requests.

    folder: the operator folder that it was loaded from, if it was.
    """

    def __init__(self, spec: OperatorSpec, prior: PriorModel, folder: Path | None = None) -> None:
        self.spec, self.prior, self.folder = spec, prior, folder

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        base: PriorModel,
        *,
        space: str | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> Operator:
        """Loads an operator from a folder or a repo of the hub ("user/repo") on its base prior.

        space: the id of the model's space, which must be the operator's. Raises CheckpointError and SpaceError as
        `load_operator` does, ModelError if the repo cannot be fetched or holds something else.
        """
        folder = _sharing().located(source, revision=revision, token=token)
        loaded: Operator = import_module("pops.operators.checkpoint").load_operator(folder, base, space=space)
        return loaded

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copies the operator folder that this operator was loaded from to another place, every file checked."""
        copied: Path = _sharing().copy_operator(self._own_folder(), folder)
        return copied

    def push_to_hub(
        self, repo: str, *, card: Card | None = None, private: bool | None = None, revision: str | None = None,
        message: str | None = None, token: str | None = None,
    ) -> str:  # fmt: skip
        """Uploads the operator to a repo of the hub ("user/repo"), made if need be; returns the commit's address.

        card: what its page says beside what operator.json knows.
        """
        how = {"private": private, "revision": revision, "message": message, "token": token}
        return str(_sharing().push(self._own_folder(), repo, card, **how))

    def _own_folder(self) -> Path:
        told = f"{self.spec.name} was not loaded from an operator folder; write one with save_operator"
        if self.folder is None:
            raise ConfigError(f"{told}, or import an official checkpoint: pops operators import")
        return self.folder

    def encode(self, jobs: Sequence[Sequence[Tensor | None]]) -> Condition:
        """Builds the condition of B jobs from their operands. All jobs have the same number of operands.

        An image operand is an un-normalised embedding [D] (or [1, D]), standardised here; a text operand is the text
        encoder's last hidden states [length, D] at the word's own tokens; None is a missing operand: a zero token,
        which is not masked.
        """
        import torch

        ensure(len(jobs) > 0, f"{self.spec.name}: no operands at all", OperandError)
        conditions = []
        for job in jobs:
            rows = self._rows(job)
            conditions.append(Condition(torch.cat(rows)[None], origin=self._origin(job, rows)[None]))
        return Condition.cat(conditions)

    def sample(
        self,
        condition: Condition | Tensor,
        gens: Sequence[torch.Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        sampler: str = "ancestral",
        full: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Samples one result per item: tokens [B, k, D] standardised, or a condition => un-normalised [B, D], CPU.

        gens: one CPU generator per item, for the initial noise and then each step's. steps, guidance, strength: the
        spec's unless given; uncond is zero tokens in as many slots. full: the slow forward. ConfigError where a
        strength other than 1 meets a condition that `encode` has not made.
        """
        task = self.task(condition, guidance, strength)
        return sample(
            [task], gens, steps=self.spec.steps if steps is None else steps, sampler=sampler, full=full, on_step=on_step
        )

    def task(self, condition: Condition | Tensor, guidance: float | None = None, strength: float | None = None) -> Task:
        """Returns rows of this operator for a batch; guidance and strength as in `sample`."""
        c = condition if isinstance(condition, Condition) else Condition(condition)
        return Task(
            self.prior,
            c,
            self.spec.guidance if guidance is None else guidance,
            strength=self.spec.strength if strength is None else strength,
        )

    def _origin(self, operands: Sequence[Tensor | None], rows: Sequence[Tensor]) -> Tensor:
        """Returns the mean of the image operands that are there, standardised [D]; without any, zeros: the mean of all
        images.
        """
        import torch

        roles = self.spec.roles_for(len(operands))
        images = [
            row[0]
            for role, operand, row in zip(roles, operands, rows, strict=True)
            if role.kind == "image" and operand is not None
        ]
        return torch.stack(images).mean(0) if images else torch.zeros(self.prior.dim)

    def _rows(self, operands: Sequence[Tensor | None]) -> list[Tensor]:
        """Returns each operand's condition tokens [n, D]: one per image or text token, zeros if missing."""
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


def _sharing() -> Any:
    """Returns what reads and writes operator folders; it makes operators, so it is imported when it is used."""
    return import_module("pops.operators.sharing")


class TextPrior:
    """The base prior as it computes text("...") of the language: text to image embedding, as Kandinsky 2.2 does."""

    def __init__(self, prior: PriorModel) -> None:
        self.prior = prior

    def task(
        self,
        hidden: Sequence[Tensor],
        embeds: Tensor,
        uncond: tuple[Tensor, Tensor],
        guidance: float = TEXT_GUIDANCE,
        strength: float = 1.0,
    ) -> Task:
        """Returns rows of the base prior for a batch of B encoded texts.

        hidden: hidden states [length, D] of each; embeds: [B, D]; uncond: hidden states and embedding [D] of "".
        strength: counted from the mean of all images.
        """
        rows, embed = uncond
        cond = Condition.cat([Condition(h[None].float(), None, e[None].float()) for h, e in zip(hidden, embeds)])
        cond = replace(cond, origin=embeds.new_zeros(embeds.shape).float())
        without = Condition(rows[None].float(), None, embed.reshape(1, -1).float())
        return Task(self.prior, cond, guidance, without, strength)


@dataclass(frozen=True)
class Task:
    """Rows of a batch that share a prior, guidance and strength. unconditional: one row; None: zero tokens (every
    operator).
    """

    prior: PriorModel
    condition: Condition
    guidance: float
    unconditional: Condition | None = None
    strength: float = 1.0

    def __len__(self) -> int:
        return len(self.condition)

    def strengthened(self, z: Tensor) -> Tensor:
        """Returns results [B, D], standardised, with the task's strength."""
        if self.strength == 1:
            return z
        if self.condition.origin is None:
            raise ConfigError("strength needs to know the operands; make the condition with Operator.encode")
        origin = self.condition.origin.to(z)
        return origin + self.strength * (z - origin)


def sample(
    tasks: Sequence[Task],
    gens: Sequence[torch.Generator],
    *,
    steps: int,
    sampler: str = "ancestral",
    full: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """Samples every row of the tasks in one batch => un-normalised [B, D], float32 on the CPU.

    The tasks' priors share one engine (a base prior and adapters on it). Random numbers come from `gens`, one CPU
    generator per row: the initial noise, then what the sampler draws. full: all 81 slots in each step, the slow twin.
    """
    import torch

    from pops.standardise import unstandardise

    check_sampler(sampler)
    for task in tasks:
        ensure(task.guidance >= 0, f"guidance must not be negative, got {task.guidance}", ConfigError)
        ensure(task.strength >= 0, f"strength must not be negative, got {task.strength}", ConfigError)
    rows = sum(len(task) for task in tasks)
    ensure(len(gens) == rows, f"{rows} items need as many generators, got {len(gens)}", ConfigError)
    prior = tasks[0].prior
    with torch.no_grad():
        z = randn_items((prior.dim,), gens).to(prior.device)
        denoise = _slowly(tasks) if full else _engine(tasks).denoiser([_request(task) for task in tasks])
        z = SAMPLERS[sampler](denoise, z, gens, steps=steps, scheduler=prior.scheduler, on_step=on_step)
        parts = z.float().cpu().split([len(task) for task in tasks])
        z = torch.cat([task.strengthened(part) for task, part in zip(tasks, parts, strict=True)])
        return unstandardise(z, prior.stats)


def _engine(tasks: Sequence[Task]) -> Engine:
    engine = tasks[0].prior.engine
    same = all(task.prior.engine is engine for task in tasks)
    ensure(same, "operators of different weights cannot share a batch; sample them one after another", ConfigError)
    return engine


def _request(task: Task) -> Request:
    from pops.prior.engine import Request

    return Request(task.condition, task.guidance, task.unconditional, task.prior.adapter)


def _slowly(tasks: Sequence[Task]) -> Denoise:
    """Returns the slow denoiser: every task's rows on their own, all 81 slots."""
    import torch

    parts = []
    for task in tasks:
        c = task.condition.to(task.prior.device)
        uncond = c.zeros() if task.unconditional is None else task.unconditional.to(task.prior.device).expand(len(c))
        parts.append(plain_denoiser(task.prior, c, unconditional=uncond, guidance=task.guidance))
    sizes = [len(task) for task in tasks]

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        return torch.cat([part(*zt) for part, zt in zip(parts, zip(z.split(sizes), t.split(sizes)))])

    return denoise
