"""Executor: computes a plan with a model, level by level, a batch each.

A run has one row per seed (or per row of a given embedding). A node that depends on neither has one value, which
stands for every row. Each row of a sampling node draws from a CPU generator of its own, so that a row is the same
alone and in a batch, to rounding (2e-6). A mix is an image; where its embedding is needed, it is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.embedding import Embedding
from pops.errors import EmbeddingError, OperandError, SpaceError, ensure
from pops.expression.grammar import brief_text
from pops.expression.nodes import MIX, Given, Missing, Node, Sum, Word, is_blend, is_mix
from pops.expression.plan import SUM, TEXT, Job, Level, Plan
from pops.judging import judged
from pops.magicmix.spec import mix_settings
from pops.progress import OnNote, OnProgress, OnStep
from pops.recipe import Making
from pops.seeds import check_seed, generator
from pops.trace import Trace

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.caution import Caution
    from pops.models.model import Model
    from pops.operators.operator import Task
    from pops.parts import Part
    from pops.space import TextEncoding

MAX_ROWS = 64  # embeddings sampled together
READING = "reading the operands"


@dataclass
class Value:
    """What a node came to, in each form in which another node takes it. Sequences have one item, or one per row."""

    vectors: Tensor | None = None  # the embedding, un-normalised [1 or rows, D], float32, on the CPU
    images: Sequence[Image.Image | Path] = ()  # a photo, or the images of a mix; a latent's file, too
    latents: Sequence[Tensor] = ()  # of a mix, or a layout that is a latent


@dataclass
class Leaves:
    """Operands that were encoded: vectors of photos [1, D] by node; of texts hidden states and embeddings."""

    photos: dict[Node, Tensor] = field(default_factory=dict)
    texts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # [tokens, width], [D]
    unfamiliar: dict[Node, Caution] | None = None  # operands unlike all that the model knows; None: not judged yet


class Executor:
    """Runs plans with one model; the parts of one run share the operands that were encoded."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kept = Leaves()

    def run(
        self,
        plan: Plan,
        *,
        seeds: Sequence[int] = (0,),
        making: Making | None = None,
        given: Mapping[str, Any] | None = None,
        part: Part | None = None,
        renderer: str | None = None,
        own: bool = False,
        embed: bool = True,
        upscale: int | None = None,
        on_progress: OnProgress | None = None,
        on_note: OnNote | None = None,
    ) -> Trace:
        """Computes every node of the plan.

        given: the values of `$key` operands; part: only these rows of all; where the root is a mix, its `copies` are
        the images of each row, of the seeds s, s + 1, ...; renderer: whose networks mix, None for what was loaded, or
        with `own` the model's own; embed: whether the images of a mix at the root are encoded, too; upscale: of mixes,
        see MagicMix.each. Photos and texts that an earlier run of this executor encoded are not encoded again. Raises
        OperandError, EmbeddingError, SpaceError or PhotoError for an operand that cannot be used.
        """
        run = _Run(self.model, plan, given or {}, list(seeds), making or Making(), renderer, part, self._kept)
        run.on_progress, run.on_note, run.own, run.upscale = on_progress, on_note, own, upscale
        if not embed and is_mix(plan.root):
            run.needed = run.needed - {plan.root}
        run.execute()
        space, root = self.model.space.id, run.values[plan.root]
        values = {n: Embedding(v.vectors, space) for n, v in run.values.items() if v.vectors is not None}
        whole = None if root.vectors is None else Embedding(root.vectors.expand(run.rows, -1), space)
        images: dict[Node, Any] = {n: v.images for n, v in run.values.items() if n in run.mixed}
        return Trace(plan, values, whole, run.rows, images, list(root.latents), part, self._kept.unfamiliar or {})


class _Run:
    """The state of one run."""

    def __init__(
        self,
        model: Model,
        plan: Plan,
        given: Mapping[str, Any],
        seeds: Sequence[int],
        making: Making,
        renderer: str | None,
        part: Part | None,
        kept: Leaves,
    ) -> None:
        self.model, self.plan, self.given, self.making = model, plan, given, making
        self.renderer, self.part, self.kept = renderer, part, kept
        self.seeds = part.own(seeds) if part else seeds
        self.needed = plan.embedded  # the nodes whose embedding somebody takes
        self.on_progress: OnProgress | None = None
        self.on_note: OnNote | None = None
        self.upscale: int | None = None
        self.own = False  # whether the model's own renderer mixes unless one is named
        self.values: dict[Node, Value] = {}
        self.mixed: set[Node] = set()
        self.rows = len(part.rows) if part else len(seeds)
        self.done = 0
        self.total = 1 + sum(self._steps(level) for level in plan.levels if level.operator != SUM)

    def execute(self) -> None:
        """Fills `values` for every node of the plan."""
        import torch

        with torch.no_grad():
            # 1) Leaves: all photos in one batch, all texts in one; saved and given embeddings as they are.
            self._report(0, READING)
            self._leaves()
            self._report(1, READING)

            # 2) Levels: those of a depth are independent of each other, so all their jobs and rows share batches.
            for _, same in groupby(self.plan.levels, key=lambda level: level.depth):
                levels = list(same)
                for level in levels:
                    if level.operator == SUM:
                        for job in level.jobs:
                            self.values[job.node] = Value(self._sum(job))
                    if level.operator == MIX:
                        self._mix(level)
                for batch in self._batches([level for level in levels if level.operator not in (SUM, MIX)]):
                    self._sample(batch)

    def vectors_of(self, node: Node) -> Tensor:
        """The embedding of a node that the plan has as one [1 or rows, D]."""
        vectors = self.values[node].vectors
        assert vectors is not None, f"the plan does not say that {brief_text(node)} is needed as an embedding"
        return vectors

    # --- leaves

    def _leaves(self) -> None:
        from pops.magicmix.latents import is_latent

        # 1) Embeddings, saved or given: what is cheap to refuse is looked at first.
        to_encode: dict[Node, Any] = {}
        needed = self.needed
        for saved in self.plan.saved:
            if saved not in needed and is_latent(saved.path):
                self.values[saved] = Value(images=[Path(saved.path)])
            elif is_latent(saved.path):
                told = f"{saved.path} is a latent, which can be a layout; a content is a text, a photo, an embedding"
                raise OperandError(told)
            else:
                self._take(saved, Embedding.load(saved.path))
        for asked in self.plan.given:
            self._take_given(asked, to_encode)
        for value in self.values.values():
            count = 1 if value.vectors is None else len(value.vectors)
            told = f"an operand has {count} rows and another {self.rows}; give 1 or as many"
            ensure(count in (1, self.rows), told, EmbeddingError)

        # 2) Photos, all in one batch; a missing file among them is told before the tower is read.
        self.values |= {photo: Value(images=[Path(photo.path)]) for photo in self.plan.photos}
        to_encode |= {photo: photo.path for photo in self.plan.photos if photo in needed}
        if self.kept.unfamiliar is None:
            squares = dict(zip(to_encode, self.model.squares(list(to_encode.values()), self.making.fit), strict=True))
            looked = (*self.plan.photos, *self.plan.given)
            seen = {node: self.values[node].images[0] for node in looked if self.values[node].images}
            unfamiliar = judged(self.model, self.plan, seen, squares, self.making.fit, self.on_note)
            if squares:
                encoded = self.model.space.encode_images(list(squares.values()))
                self.kept.photos = {node: encoded[i : i + 1] for i, node in enumerate(squares)}
            self.kept.unfamiliar = unfamiliar
        for node in to_encode:
            self.values[node].vectors = self.kept.photos[node]

        # 3) Texts.
        texts = list(self.plan.texts)
        if any(level.operator == TEXT for level in self.plan.levels):
            texts = list(dict.fromkeys([*texts, ""]))  # guidance's other branch
        if texts and not self.kept.texts:
            encoding: TextEncoding = self.model.space.encode_texts(texts)
            encoding.require_whole(texts)
            self.kept.texts = {t: (encoding.hidden[i], encoding.embeds[i]) for i, t in enumerate(texts)}

    def _take_given(self, asked: Given, to_encode: dict[Node, Any]) -> None:
        """Takes a value that was handed over in Python: an Embedding, a latent, or a photo, which is encoded later."""
        if asked.key not in self.given:
            raise OperandError(f"${asked.key} has no value; give it in Python, given={{{asked.key!r}: ...}}")
        value = self.given[asked.key]
        if isinstance(value, Embedding):
            self._take(asked, value)
        elif hasattr(value, "untyped_storage"):  # a tensor
            ensure(asked not in self.needed, "a latent can be a layout and nothing else", OperandError)
            self.values[asked] = Value(latents=[value])
        else:
            self.values[asked] = Value(images=[value])
            if asked in self.needed:
                to_encode[asked] = value

    def _take(self, node: Node, embedding: Embedding) -> None:
        embedding.require_space(self.model.space.id)
        wide, width = self.model.space.dim, embedding.dim
        told = f"{brief_text(node)} has {width} numbers a vector, the space {wide}; make it anew"
        ensure(wide == width, told, SpaceError)
        vectors = embedding.vectors
        if embedding.n > 1 and self.part:
            vectors = vectors[self.part.rows.start : self.part.rows.stop]
        elif embedding.n > 1 and self.rows == 1:
            self.rows = embedding.n
        self.values[node] = Value(vectors)

    # --- levels

    def _sum(self, job: Job) -> Tensor:
        """Weighted sum of un-normalised embeddings; one row meets many."""
        import torch

        terms = [w * self.vectors_of(node) for w, node in zip(job.weights, job.operands, strict=True)]
        total = torch.stack(torch.broadcast_tensors(*terms)).sum(0)
        fine = bool(total.isfinite().all())
        ensure(fine, f"the sum {brief_text(job.node)} is too large for float32; use smaller weights", OperandError)
        return total

    def _batches(self, levels: Sequence[Level]) -> list[list[Level]]:
        """Levels that can share a batch: the same weights but for adapters, the same sampler and steps."""
        batches: dict[tuple[int, str, int], list[Level]] = {}
        for level in levels:
            prior = self.model.text_prior.prior if level.operator == TEXT else self.model.operator(level.operator).prior
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
            self.values[job.node] = Value(rows)
        self.done += sum(self._steps(level) for level in levels)

    def _task(self, level: Level, items: list[tuple[Job, int]]) -> Task:
        """Rows of one level."""
        import torch

        from pops.operators.operator import TEXT_GUIDANCE

        guidance = level.option("guidance", self.making.guidance)
        strength = level.option("strength", self.making.strength)
        if level.operator == TEXT:
            hidden, embeds = zip(*(self.kept.texts[job.prompt] for job, _ in items), strict=True)
            scale = TEXT_GUIDANCE if guidance is None else guidance
            strong = 1.0 if strength is None else strength
            return self.model.text_prior.task(hidden, torch.stack(embeds), self.kept.texts[""], scale, strong)
        operator = self.model.operator(level.operator)
        condition = operator.encode([[self._operand(node, row) for node in job.operands] for job, row in items])
        own = self.model.operators[level.operator].defaults(level.partial)
        return operator.task(
            condition,
            own.guidance if guidance is None else guidance,
            own.strength if strength is None else strength,
        )

    def _operand(self, node: Node, row: int) -> Tensor | None:
        """The node in one row: its vector [D], a word's hidden rows [len, width], None if missing."""
        if isinstance(node, Missing):
            return None
        if isinstance(node, Word):
            return self.kept.texts[node.text][0]
        vectors = self.vectors_of(node)
        return vectors[row if len(vectors) > 1 else 0]

    def _mix(self, level: Level) -> None:
        """The mixes of a level, all rows of all of them together: their images, and where needed the embeddings."""
        from pops.magicmix.operands import with_defaults

        # 1) One layout, content and seed per image; of the root several images per row.
        rows = {job: [i for i in range(self._rows_of(job)) for _ in self._copies(job)] for job in level.jobs}
        asked = [(job, row) for job in level.jobs for row in rows[job]]
        seeds = [
            check_seed(s + j)
            for job in level.jobs
            for s in self._seeds_of(job, self._rows_of(job))
            for j in self._copies(job)
        ]
        mixer = self.model.mixer(self.renderer, own=self.own)
        settings = with_defaults(mix_settings(dict(level.options)), self.model.files.info, mixer.native)
        made = mixer.each(
            [self._layout(job.operands[0], row) for job, row in asked],
            [self._content(job.operands[1], row) for job, row in asked],
            seeds=seeds,
            output="both",
            upscale=self.upscale,
            on_step=self._steps_of_mix(level),
            on_note=self.on_note,
            **settings,
        )
        self.done += self._steps(level)

        # 2) To each mix its images; the first of each row is what is encoded.
        for job in level.jobs:
            own, made = made[: len(rows[job])], made[len(rows[job]) :]
            images, latents = [image for image, _ in own], [latent for _, latent in own]
            value = Value(images=images, latents=latents)
            if job.node in self.needed:
                value.vectors = self.model.encode_photos(images[:: len(self._copies(job))], self.making.fit)
            if job.node == self.plan.root and self._rows_of(job) < self.rows:  # the same images for every row
                value.images, value.latents = images * self.rows, latents * self.rows
            self.values[job.node] = value
            self.mixed.add(job.node)

    def _copies(self, job: Job) -> range:
        return self.part.copies if self.part and job.node == self.plan.root else range(1)

    def _layout(self, node: Node, row: int) -> Any:
        """What a mix takes as layout: an image, a photo's or a latent's file, a latent, or else as a content."""
        value = self.values.get(node)
        if value is not None and (value.images or value.latents):
            found: Sequence[Any] = value.images or value.latents
            return found[row if len(found) > 1 else 0]
        return self._content(node, row)

    def _content(self, node: Node, row: int) -> Any:
        """What a mix takes as content: a text, an embedding, or several of them with weights."""
        from pops.magicmix.prompt import Prompt

        if isinstance(node, Word):
            return Prompt.of(node.text)
        if isinstance(node, Sum) and is_blend(node):
            return tuple((self._content(part, row), weight) for weight, part in node.terms)
        vectors = self.vectors_of(node)
        return Embedding(vectors[row if len(vectors) > 1 else 0][None], self.model.space.id)

    def _steps_of_mix(self, level: Level) -> OnStep:
        steps = self._steps(level)
        return lambda done, total: self._report(0, MIX, steps * done // total)

    def _rows_of(self, job: Job) -> int:
        """1 where nothing varies from row to row, else all rows."""
        varies = job.seed is None and len(self.seeds) > 1
        return self.rows if varies or any(self._count(operand) > 1 for operand in job.operands) else 1

    def _count(self, node: Node) -> int:
        """How many rows a node's value has."""
        if is_blend(node):
            return max(self._count(part) for part in node.children())
        value = self.values.get(node)
        if value is None:
            return 1
        return max(len(value.images), 1 if value.vectors is None else len(value.vectors))

    def _seeds_of(self, job: Job, count: int) -> list[int]:
        if job.seed is not None or len(self.seeds) == 1:
            return [self.seeds[0] if job.seed is None else job.seed] * count
        return list(self.seeds)

    def _steps(self, level: Level) -> int:
        from pops.magicmix.operands import MixSettings
        from pops.operators.operator import TEXT_STEPS

        if level.operator == MIX:
            window = MixSettings.of(mix_settings(dict(level.options))).window
            return window.steps - window.start  # network calls, about
        text = level.operator == TEXT
        default = TEXT_STEPS if text else self.model.operators[level.operator].defaults(level.partial).steps
        steps: int = level.option("steps", self.making.steps or default)
        return steps

    def _sampler(self, level: Level) -> str:
        sampler: str = level.option("sampler", self.making.sampler)
        return sampler

    # --- progress

    def _within(self, levels: Sequence[Level], start: int, count: int) -> OnStep:
        """Steps of one slice of a batch as steps of the whole run."""
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
