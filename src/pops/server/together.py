"""Several jobs' images in one batch: one plan of all their expressions, one rendering of all their rows.

A row of a batch equals the row alone but for the rounding of sums: its embedding by some 1e-6, its image by a grey
level here and there. So the server does this only where it is asked to (--shared-batches).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pops.embedding import Embedding
from pops.expression.grammar import parse
from pops.expression.nodes import Call, Let, Node, Sum, Text, is_mix, walk
from pops.progress import Callbacks, OnProgress
from pops.recipe import Recipe
from pops.runner import threads
from pops.server.child import Message
from pops.server.references import References

if TYPE_CHECKING:
    from PIL import Image

    from pops.caution import Caution
    from pops.studio import Pops


class Together:
    """Jobs that only differ in their expressions and seeds; see checks.together."""

    def __init__(self, pops: Pops, jobs: list[Message]) -> None:
        self.pops, self.jobs = pops, jobs
        self.notes: list[str] = []
        self.references = {job["id"]: References(job["photos"], job["libraries"]) for job in jobs}
        self.asked = {job["id"]: Recipe.of_data(job["recipe"], "the job") for job in jobs}
        self.recipes = {key: self.references[key].to_paths(asked).trusted() for key, asked in self.asked.items()}

    @property
    def possible(self) -> bool:
        """Whether the renderer makes each image without regard to the others, and the model is the worker's own."""
        recipe = next(iter(self.recipes.values()))
        asked = recipe.loading
        if not self.pops.model.fits(asked):
            return False
        backend = self.pops.model.renderer(asked.renderer, library=asked.library, own=asked.model is not None)
        return not backend.capabilities.together

    def images(
        self, on_progress: OnProgress, warn: Callable[[Message, list[Caution], References], None]
    ) -> Iterator[tuple[Message, int, Image.Image]]:
        """Yields every image with its job and its number in it. warn: is told what a job's images may suffer from."""
        runner, first = self.pops.runner, next(iter(self.recipes.values()))
        rows = [(job, number, seed) for job in self.jobs for number, seed in enumerate(self.recipes[job["id"]].seeds)]

        # 1) One plan: every row's expression with its seed written into it, under a sum that nobody looks at.
        roots = [seeded(parse(self.recipes[job["id"]].expression), seed) for job, _, seed in rows]
        nodes = [self.pops.plan(root).root for root in roots]
        making = first.making.model_dump()
        whole = Sum(tuple((1.0, root) for root in roots))
        with threads(first.loading.threads):
            trace = self.pops.trace(whole, on_progress=on_progress, on_note=self.notes.append, **making)

            for (job, number, _), node in zip(rows, nodes, strict=True):
                if number == 0:  # a job's rows have the same operands
                    parts = [part for part in dict.fromkeys(walk(node)) if part in trace.unfamiliar]
                    warn(job, [trace.unfamiliar[part] for part in parts], self.references[job["id"]])

            # 2) One rendering, each row with its own seed.
            embedding = Embedding.cat([trace.values[node] for node in nodes])
            drawn = first.model_copy(update={"seeds": tuple(seed for _, _, seed in rows)})
            images = runner.rendered(embedding, drawn, (), Callbacks(on_progress, note=self.notes.append))

        # 3) Each image with the recipe of its own job.
        settled = {}
        for key, recipe in self.recipes.items():
            count = len(recipe.seeds)
            settled[key] = runner.recipes(runner.settled(recipe, self.pops.plan(recipe.expression), count), count)
        for (job, number, _), image in zip(rows, images, strict=True):
            yield job, number, runner.finished(image, settled[job["id"]][number])


def seeded(root: Node, seed: int) -> Node:
    """Returns the tree with the seed in every call that has none; `t@7` keeps its own."""
    match root:
        case Text(seed=None):
            return replace(root, seed=seed)
        case Call(operands=operands, seed=own):
            parts = tuple(seeded(part, seed) for part in operands)
            return replace(root, operands=parts, seed=seed if own is None and not is_mix(root) else own)
        case Sum(terms=terms):
            return replace(root, terms=tuple((weight, seeded(part, seed)) for weight, part in terms))
        case Let(bindings=bindings, body=body):
            own_bindings = tuple((name, seeded(part, seed)) for name, part in bindings)
            return replace(root, bindings=own_bindings, body=seeded(body, seed))
    return root
