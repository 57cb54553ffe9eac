"""One plan executed: encode what it needs, then level by level, a batch each. Knows no models and no files.

A call has one row a seed (or a row of a given embedding). A node that depends on neither has one vector,
which stands for every row. Each row of a sampling node draws from a CPU generator of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pops.errors import ConfigError, EmbeddingError, OperandError, SpaceError, ensure, suggest
from pops.expression.grammar import to_text
from pops.expression.nodes import Given, Missing, Node, Word, path_node
from pops.expression.plan import SUM, TEXT, Job, Level, Plan
from pops.expression.resolve import MAX_GUIDANCE, MAX_STEPS
from pops.files import expanded
from pops.seeds import check_seed, generator

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.expression import Expression
    from pops.operators.operator import Operator, Task, TextPrior
    from pops.operators.spec import OperatorSpec
    from pops.space import Space, TextEncoding

Operand: TypeAlias = "str | Path | Image.Image | Embedding | Expression | Node | None"
Seed: TypeAlias = "int | Sequence[int]"
OnProgress: TypeAlias = Callable[[int, int, str], None]  # (done, total, what); raising from it cancels

MAX_ROWS = 64  # embeddings sampled together
READING = "reading the operands"


@dataclass(frozen=True)
class Settings:
    """How embeddings are made. None: each operator's own default. A node's own options come first."""

    steps: int | None = None
    guidance: float | None = None
    sampler: str = "ancestral"
    fit: str = "squash"  # how a photo becomes square: squash, crop or pad

    def __post_init__(self) -> None:
        ok = self.steps is None or 1 <= self.steps <= MAX_STEPS
        ensure(ok, f"steps must be from 1 to {MAX_STEPS}, got {self.steps}", ConfigError)
        ok = self.guidance is None or 0 <= self.guidance <= MAX_GUIDANCE
        ensure(ok, f"guidance must be from 0 to {MAX_GUIDANCE:g}, got {self.guidance}", ConfigError)

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> Settings:
        """Settings by name, as keyword arguments gave them; TypeError for another name."""
        for name in how:
            if name not in cls.__dataclass_fields__:
                raise TypeError(f"there is no setting {name!r}{suggest(name, cls.__dataclass_fields__)}")
        return cls(**how)

    def given(self) -> dict[str, Any]:
        """What a recipe keeps."""
        return {k: v for k, v in vars(self).items() if v is not None}


def seed_list(seed: Seed) -> list[int]:
    """One seed or several, checked."""
    seeds = list(seed) if isinstance(seed, (list, tuple, range)) else [seed]
    ensure(len(seeds) > 0, "the list of seeds is empty; give at least one", ConfigError)
    return [check_seed(s) for s in seeds]


@dataclass(frozen=True)
class Trace:
    """One evaluation, whole: the plan, every node's embedding, and the root's."""

    plan: Plan
    values: Mapping[Node, Embedding]
    result: Embedding


def node_of(operand: Operand, kind: str, given: dict[str, Any], where: str) -> Node:
    """The node an operand stands for; Python values go into `given`, the same object under the same key."""
    match operand:
        case None:
            return Missing()
        case Node():
            return operand
        case str() if kind == "text":
            return Word(operand)
        case str() | Path():
            return path_node(str(operand))
    root = getattr(operand, "root", None)
    if isinstance(root, Node):
        return root
    if kind == "text":
        raise OperandError(f"{where} takes a word here, got a {type(operand).__name__}; give a string")
    if not hasattr(operand, "vectors") and not hasattr(operand, "getexif"):
        raise OperandError(
            f"{where} takes a photo here, got a {type(operand).__name__}; "
            "give a path, a PIL image, an Embedding or None"
        )
    key = next((k for k, v in given.items() if v is operand), f"given{len(given) + 1}")
    given[key] = operand
    return Given(key)


def inputs_of(layout: Plan) -> dict[str, str]:
    """The files an expression reads -> 16 hex digits of each one's sha256: has an operand changed since?"""
    digests = {}
    for path in [*(photo.path for photo in layout.photos), *(saved.path for saved in layout.saved)]:
        with expanded(path).open("rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return digests


class Parts(Protocol):
    """What an evaluation needs of a model; Pops is one."""

    @property
    def space(self) -> Space: ...
    @property
    def operators(self) -> Mapping[str, OperatorSpec]: ...
    @property
    def text_prior(self) -> TextPrior: ...
    def operator(self, name: str) -> Operator: ...
    def encode_photos(self, photos: Sequence[Any], fit: str) -> Tensor: ...


class Evaluation:
    """`execute` -> the un-normalised vectors [1 or rows, D], float32 on the CPU, of every node."""

    def __init__(
        self,
        parts: Parts,
        layout: Plan,
        given: Mapping[str, Any],
        seeds: Sequence[int],
        settings: Settings,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.parts, self.plan, self.given, self.seeds, self.settings = parts, layout, given, seeds, settings
        self.on_progress = on_progress
        self.values: dict[Node, Tensor] = {}
        self.words: dict[str, tuple[Tensor, Tensor]] = {}  # text -> hidden rows [len, width], embedding [D]
        self.rows = len(seeds)
        self.done = 0
        self.total = 1 + sum(self._steps(level) for level in layout.levels if level.operator != SUM)

    def execute(self) -> dict[Node, Tensor]:
        import torch

        with torch.no_grad():
            # 1) Leaves: all photos in one batch, all texts in one; saved and given embeddings as they are.
            self._report(0, READING)
            self._leaves()
            self._report(1, READING)

            # 2) Levels: those of a depth are independent, so their jobs and rows together make the batches.
            for _, same in groupby(self.plan.levels, key=lambda level: level.depth):
                levels = list(same)
                for level in levels:
                    if level.operator == SUM:
                        for job in level.jobs:
                            self.values[job.node] = self._sum(job)
                for batch in self._batches([level for level in levels if level.operator != SUM]):
                    self._sample(batch)
        return self.values

    # --- leaves
    # ----------------------------------------------------------------------------------------------

    def _leaves(self) -> None:
        from pops.embedding import Embedding

        # 1) Embeddings, saved or given: what is cheap to refuse is looked at first.
        pictures: dict[Node, Any] = {}
        for saved in self.plan.saved:
            self._take(saved, Embedding.load(saved.path))
        for asked in self.plan.given:
            if asked.key not in self.given:
                raise OperandError(f"${asked.key} has no value; give it in Python, given={{{asked.key!r}: ...}}")
            value = self.given[asked.key]
            if isinstance(value, Embedding):
                self._take(asked, value)
            else:
                pictures[asked] = value
        for vectors in self.values.values():
            ok = len(vectors) in (1, self.rows)
            ensure(
                ok,
                f"an operand has {len(vectors)} rows and another {self.rows}; give 1 or as many",
                EmbeddingError,
            )

        # 2) Photos, all in one batch; a missing file among them is told before the tower is read.
        pictures |= {photo: photo.path for photo in self.plan.photos}
        if pictures:
            encoded = self.parts.encode_photos(list(pictures.values()), self.settings.fit)
            self.values.update({node: encoded[i : i + 1] for i, node in enumerate(pictures)})

        # 3) Texts.
        texts = list(self.plan.texts)
        if any(level.operator == TEXT for level in self.plan.levels):
            texts = list(dict.fromkeys([*texts, ""]))  # what guidance leads away from
        if texts:
            encoding: TextEncoding = self.parts.space.encode_texts(texts)
            long = [t for t, cut in zip(texts, encoding.truncated, strict=True) if cut]
            ensure(
                not long,
                f"the text encoder cannot read so long a text to its end: {long[:1]}; use fewer words",
                OperandError,
            )
            self.words = {t: (encoding.hidden[i], encoding.embeds[i]) for i, t in enumerate(texts)}

    def _take(self, node: Node, embedding: Embedding) -> None:
        embedding.require_space(self.parts.space.id)
        wide, width = self.parts.space.dim, embedding.dim
        ensure(
            wide == width, f"{to_text(node)} has {width} numbers a vector, the space {wide}; make it anew", SpaceError
        )
        self.values[node] = embedding.vectors
        if embedding.n > 1 and self.rows == 1:
            self.rows = embedding.n

    # --- levels
    # ----------------------------------------------------------------------------------------------

    def _sum(self, job: Job) -> Tensor:
        """Weighted sum of un-normalised embeddings; one row meets many."""
        import torch

        terms = [w * self.values[node] for w, node in zip(job.weights, job.operands, strict=True)]
        total = torch.stack(torch.broadcast_tensors(*terms)).sum(0)
        fine = bool(total.isfinite().all())
        ensure(fine, f"the sum {to_text(job.node)} is too large for float32; use smaller weights", OperandError)
        return total

    def _batches(self, levels: Sequence[Level]) -> list[list[Level]]:
        """Levels that can share a batch: the same weights but for adapters, the same sampler and steps."""
        batches: dict[tuple[int, str, int], list[Level]] = {}
        for level in levels:
            prior = self.parts.text_prior.prior if level.operator == TEXT else self.parts.operator(level.operator).prior
            key = (id(prior.engine), self._sampler(level), self._steps(level))
            batches.setdefault(key, []).append(level)
        return list(batches.values())

    def _sample(self, levels: Sequence[Level]) -> None:
        """The jobs of levels that share a batch, all rows of all of them (in slices of MAX_ROWS)."""
        import torch

        from pops.operators.operator import sample

        # 1) The batch: level, job and a row's number for each of its items, and the item's seed.
        jobs = [(level, job, self._rows_of(job)) for level in levels for job in level.jobs]
        items = [(level, job, row) for level, job, n in jobs for row in range(n)]
        seeds = [s for _, job, n in jobs for s in self._seeds_of(job, n)]

        # 2) Sample, and hand each job its rows.
        parts: list[Tensor] = []
        for start in range(0, len(items), MAX_ROWS):
            some = items[start : start + MAX_ROWS]
            tasks = [
                self._task(level, [(job, row) for _, job, row in run])
                for level, run in groupby(some, lambda item: item[0])
            ]
            parts.append(
                sample(
                    tasks,
                    [generator(s) for s in seeds[start : start + MAX_ROWS]],
                    steps=self._steps(levels[0]),
                    sampler=self._sampler(levels[0]),
                    on_step=self._within(levels, start, len(items)),
                )
            )
        counts = [n for _, _, n in jobs]
        for (_, job, _), rows in zip(jobs, torch.cat(parts).float().cpu().split(counts), strict=True):
            self.values[job.node] = rows
        self.done += sum(self._steps(level) for level in levels)

    def _task(self, level: Level, items: list[tuple[Job, int]]) -> Task:
        """Rows of one level."""
        import torch

        from pops.operators.operator import TEXT_GUIDANCE

        guidance = level.option("guidance", self.settings.guidance)
        if level.operator == TEXT:
            hidden, embeds = zip(*(self.words[job.prompt] for job, _ in items), strict=True)
            scale = TEXT_GUIDANCE if guidance is None else guidance
            return self.parts.text_prior.task(hidden, torch.stack(embeds), self.words[""], scale)
        operator = self.parts.operator(level.operator)
        condition = operator.encode([[self._operand(node, row) for node in job.operands] for job, row in items])
        return operator.task(condition, guidance)

    def _operand(self, node: Node, row: int) -> Tensor | None:
        """The node in one row: its vector [D], a word's hidden rows [len, width], None if missing."""
        if isinstance(node, Missing):
            return None
        if isinstance(node, Word):
            return self.words[node.text][0]
        vectors = self.values[node]
        return vectors[row if len(vectors) > 1 else 0]

    def _rows_of(self, job: Job) -> int:
        """1 where nothing varies from row to row, else all rows."""
        varies = (job.seed is None and len(self.seeds) > 1) or any(
            len(self.values[o]) > 1 for o in job.operands if o in self.values
        )
        return self.rows if varies else 1

    def _seeds_of(self, job: Job, count: int) -> list[int]:
        if job.seed is not None or len(self.seeds) == 1:
            return [self.seeds[0] if job.seed is None else job.seed] * count
        return list(self.seeds)

    def _steps(self, level: Level) -> int:
        from pops.operators.operator import TEXT_STEPS

        default = TEXT_STEPS if level.operator == TEXT else self.parts.operators[level.operator].steps
        steps: int = level.option("steps", self.settings.steps or default)
        return steps

    def _sampler(self, level: Level) -> str:
        sampler: str = level.option("sampler", self.settings.sampler)
        return sampler

    # --- progress
    # --------------------------------------------------------------------------------------------

    def _within(self, levels: Sequence[Level], start: int, count: int) -> Callable[[int, int], None]:
        """Steps of one slice of a batch as steps of the whole evaluation."""
        share = min(MAX_ROWS, count - start) / count
        steps = sum(self._steps(level) for level in levels)
        what = ", ".join(dict.fromkeys(level.operator for level in levels))

        def on_step(done: int, total: int) -> None:
            part = (start / count + share * done / total) * steps
            if self.on_progress:
                self.on_progress(self.done + int(part), self.total, what)

        return on_step

    def _report(self, steps: int, what: str) -> None:
        self.done += steps
        if self.on_progress:
            self.on_progress(self.done, self.total, what)
