"""One plan executed: encode what it needs, then level by level, a batch each. Knows no models and no files.

A call has one row a seed (or a row of a given embedding). A node that depends on neither has one vector,
which stands for every row. Each row of a sampling node draws from a CPU generator of its own. A mix is a picture,
and is encoded where its embedding is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import EmbeddingError, OperandError, SpaceError, ensure
from pops.expression.grammar import to_text
from pops.expression.nodes import MIX, Missing, Node, Word
from pops.expression.plan import SUM, TEXT, Job, Level, Plan
from pops.request import OnProgress, OnStep, Settings
from pops.seeds import check_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.operators.operator import Operator, Task, TextPrior
    from pops.operators.spec import OperatorSpec
    from pops.space import Space, TextEncoding

MAX_ROWS = 64  # embeddings sampled together
READING = "reading the operands"


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
    def mix_each(
        self,
        layouts: Sequence[Any],
        contents: Sequence[Any],
        *,
        seeds: Sequence[int],
        options: Sequence[tuple[str, Any]],
        renderer: str | None,
        on_step: OnStep | None,
    ) -> list[Any]: ...
    def mix_calls(self, options: Sequence[tuple[str, Any]]) -> int: ...


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
        *,
        copies: int = 1,
    ) -> None:
        """copies: pictures of each row where the root is a mix, of its seeds s, s + 1, ..."""
        self.parts, self.plan, self.given, self.seeds, self.settings = parts, layout, given, seeds, settings
        self.on_progress, self.copies = on_progress, copies
        self.values: dict[Node, Tensor] = {}
        self.pictures: dict[Node, list[Any]] = {}  # of mixes, one or one a row
        self.plain: dict[Node, Any] = {}  # layouts that are no embeddings: photos, files of latents, given pictures
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
                    if level.operator == MIX:
                        self._mix(level)
                for batch in self._batches([level for level in levels if level.operator not in (SUM, MIX)]):
                    self._sample(batch)
        return self.values

    # --- leaves
    # ----------------------------------------------------------------------------------------------

    def _leaves(self) -> None:
        from pops.embedding import Embedding
        from pops.magicmix.latents import is_latent

        # 1) Embeddings, saved or given: what is cheap to refuse is looked at first.
        pictures: dict[Node, Any] = {}
        needed = self.plan.embedded
        for saved in self.plan.saved:
            if saved not in needed and is_latent(saved.path):
                self.plain[saved] = Path(saved.path)
            else:
                self._take(saved, Embedding.load(saved.path))
        for asked in self.plan.given:
            if asked.key not in self.given:
                raise OperandError(f"${asked.key} has no value; give it in Python, given={{{asked.key!r}: ...}}")
            value = self.given[asked.key]
            if isinstance(value, Embedding):
                self._take(asked, value)
            else:
                self.plain[asked] = value
                if asked in needed:
                    pictures[asked] = value
        for vectors in self.values.values():
            ok = len(vectors) in (1, self.rows)
            ensure(
                ok,
                f"an operand has {len(vectors)} rows and another {self.rows}; give 1 or as many",
                EmbeddingError,
            )

        # 2) Photos, all in one batch; a missing file among them is told before the tower is read.
        self.plain |= {photo: Path(photo.path) for photo in self.plan.photos}
        pictures |= {photo: photo.path for photo in self.plan.photos if photo in needed}
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
        own = self.parts.operators[level.operator].defaults(level.partial)[1]
        return operator.task(condition, own if guidance is None else guidance)

    def _operand(self, node: Node, row: int) -> Tensor | None:
        """The node in one row: its vector [D], a word's hidden rows [len, width], None if missing."""
        if isinstance(node, Missing):
            return None
        if isinstance(node, Word):
            return self.words[node.text][0]
        vectors = self.values[node]
        return vectors[row if len(vectors) > 1 else 0]

    def _mix(self, level: Level) -> None:
        """The mixes of a level, all rows of all of them together; each one's pictures, and their embeddings."""
        # 1) One layout, content and seed a picture; of the root several.
        rows = {job: [i for i in range(self._rows_of(job)) for _ in range(self._copies(job))] for job in level.jobs}
        asked = [(job, row) for job in level.jobs for row in rows[job]]
        seeds = [
            check_seed(s + j)
            for job in level.jobs
            for s in self._seeds_of(job, self._rows_of(job))
            for j in range(self._copies(job))
        ]
        steps = self._steps(level)
        pictures = self.parts.mix_each(
            [self._layout(job.operands[0], row) for job, row in asked],
            [self._content(job.operands[1], row) for job, row in asked],
            seeds=seeds,
            options=level.options,
            renderer=self.settings.renderer,
            on_step=lambda done, total: self._report(0, MIX, steps * done // total),
        )
        self.done += steps

        # 2) To each mix its pictures; the first of each row is what is encoded.
        for job in level.jobs:
            own, pictures = pictures[: len(rows[job])], pictures[len(rows[job]) :]
            if job.node in self.plan.embedded:
                self.values[job.node] = self.parts.encode_photos(own[:: self._copies(job)], self.settings.fit)
            whole = job.node == self.plan.root and self._rows_of(job) < self.rows
            self.pictures[job.node] = own * self.rows if whole else own

    def _copies(self, job: Job) -> int:
        return self.copies if job.node == self.plan.root else 1

    def _layout(self, node: Node, row: int) -> Any:
        """What mix takes as layout: a picture or its file where there is one, else as a content."""
        found = self.pictures.get(node)
        if found is not None:
            return found[row if len(found) > 1 else 0]
        return self.plain[node] if node in self.plain else self._content(node, row)

    def _content(self, node: Node, row: int) -> Any:
        """What mix takes as content: a text, or an embedding."""
        from pops.embedding import Embedding
        from pops.magicmix.prompt import Prompt

        if isinstance(node, Word):
            return Prompt.of(node.text)
        vectors = self.values[node]
        return Embedding(vectors[row if len(vectors) > 1 else 0][None], self.parts.space.id)

    def _rows_of(self, job: Job) -> int:
        """1 where nothing varies from row to row, else all rows."""
        each = [len(held[o]) for held in (self.values, self.pictures) for o in job.operands if o in held]
        varies = (job.seed is None and len(self.seeds) > 1) or any(n > 1 for n in each)
        return self.rows if varies else 1

    def _seeds_of(self, job: Job, count: int) -> list[int]:
        if job.seed is not None or len(self.seeds) == 1:
            return [self.seeds[0] if job.seed is None else job.seed] * count
        return list(self.seeds)

    def _steps(self, level: Level) -> int:
        from pops.operators.operator import TEXT_STEPS

        if level.operator == MIX:
            return self.parts.mix_calls(level.options)
        text = level.operator == TEXT
        default = TEXT_STEPS if text else self.parts.operators[level.operator].defaults(level.partial)[0]
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

    def _report(self, steps: int, what: str, within: int = 0) -> None:
        self.done += steps
        if self.on_progress:
            self.on_progress(self.done + within, self.total, what)
