"""Runner: makes what a recipe asks for with one model: the plan's trace, the images, figures, grids.

Each image is handed out with its recipe, complete: what was loaded, the inputs' digests, versions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pops.embedding import Embedding
from pops.errors import ConfigError, ensure
from pops.execute import Executor
from pops.expression import Expression, parse
from pops.expression.grammar import to_text
from pops.expression.nodes import MIX, Call, Node, Photo, is_mix
from pops.expression.plan import SUM, Plan, plan
from pops.files import digest, expanded, is_file
from pops.magicmix.spec import mix_options
from pops.models.model import PHOTO_SIDE, Model
from pops.progress import Callbacks, OnNote, OnProgress, progress_of_part
from pops.recipe import IN_PYTHON, Recipe
from pops.rendering import ready_controls, render_rows
from pops.result import Result
from pops.trace import Trace
from pops.version import __version__

if TYPE_CHECKING:
    from PIL import Image

MOST_RESULTS = 8  # images right of an equation's =
MAX_CELLS = 400  # of one grid

logger = logging.getLogger("pops")


class Runner:
    """Runs recipes with one model. Threads may share it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(
        self,
        recipe: Recipe,
        given: Mapping[str, Any],
        control: Mapping[str, Any],
        tell: Callbacks,
        *,
        figures: Sequence[str] = (),
        render: bool = True,
        embed: bool = False,
    ) -> Result:
        """Makes the images of a recipe (see Pops.run). control: kind -> photo, where it is not the recipe's path."""
        # 1) All that can be refused is refused before a network runs.
        planned = self.plan(recipe.expression)
        mixed, wanted = is_mix(planned.root), [*figures, *([] if recipe.shows == "image" else [recipe.shows])]
        if mixed and not wanted:
            _refuse_what_changes_no_mix(recipe, planned)
        for name in recipe.in_python():
            ensure(name.startswith("$") and name[1:] in given, _given_in_python(name), ConfigError)
        renderer = recipe.loading.renderer

        # 2) The expression.
        logger.info("running %s with seeds %s", recipe.expression[:200], list(recipe.seeds)[:8])
        notes: list[str] = []
        tell = replace(tell, note=_both(notes.append, tell.note))
        trace = Executor(self.model).run(
            planned,
            seeds=recipe.seeds,
            making=recipe.making,
            given=given,
            num_images=recipe.num_images,
            renderer=renderer,
            embed=embed or not mixed,
            on_progress=tell.progress,
            on_note=tell.note,
        )

        # 3) Its images: of a mix they are there, all else is rendered.
        settled = self.settled(recipe, planned)
        trace = with_provenance(trace, settled)
        images = trace.mixed
        if images is None and not ((render and recipe.shows == "image") or "equation" in wanted):
            images = []
        elif images is None:
            images = self.rendered(trace.result, recipe, control, tell)
        chosen = range(len(images)) if recipe.image is None else [recipe.image]
        told = f"the recipe names image {recipe.image} of {len(images)}"
        ensure(not images or all(i < len(images) for i in chosen), told, ConfigError)
        finished = [self.finished(images[i], settled, i) for i in chosen if images]

        # 4) Figures.
        drawn = {}
        if wanted:
            drawn = self._figures(wanted, trace, settled, finished, tell.progress)
        if recipe.shows != "image":
            finished = [drawn[recipe.shows]]
        for i, image in enumerate(finished):
            if tell.image:
                tell.image(i, image)
        latents = [trace.latents[i] for i in chosen] if trace.latents else []
        return Result(finished, settled, trace, drawn, latents, notes)

    def finished(self, image: Image.Image, recipe: Recipe, number: int) -> Image.Image:
        """One image as it is handed out: enlarged if that was asked for, with its recipe."""
        from PIL import Image

        found = image.info.get("pops", {}).get("found")  # by the renderer "retrieval"
        times = recipe.rendering.enlarge
        size = (image.width * times, image.height * times)
        image = image.copy() if times == 1 else image.resize(size, Image.Resampling.LANCZOS)
        return recipe.model_copy(update={"image": number, "found": found}).attach(image)

    def grid(self, recipe: Recipe, given: Mapping[str, Any], tell: Callbacks) -> Result:
        """A labelled grid of mixes: the first axis to the right, the second downwards."""
        from pops.figures.grid import grid_figure

        root, axes = parse(recipe.expression).root, recipe.sweep
        ensure(is_mix(root), "a sweep is over the options of a mix; give mix(layout, content)", ConfigError)
        assert isinstance(root, Call)
        cells: list[dict[str, float]] = [
            dict(zip((axis.name for axis in axes), cell)) for cell in product(*(axis.values for axis in axes))
        ]
        told = f"a grid has at most {MAX_CELLS} cells, this one {len(cells)}; sweep fewer values"
        ensure(len(cells) <= MAX_CELLS, told, ConfigError)
        options = [mix_options({**dict(root.options), **cell}) for cell in cells]
        images, notes = [], dict[str, None]()
        for i, own in enumerate(options):
            expression = to_text(replace(root, options=own))
            cell = recipe.model_copy(update={"expression": expression, "sweep": (), "image": None})
            shown = progress_of_part(tell.progress, i, len(cells))
            made = self.run(cell, given, {}, Callbacks(shown, note=tell.note))
            images.append(made[0])
            notes |= dict.fromkeys(made.notes)
        across, down = axes[0], axes[1] if len(axes) > 1 else None
        rows = [""] if down is None else [f"{down.name} {value:g}" for value in down.values]
        in_rows = [images[i * len(rows) + j] for j in range(len(rows)) for i in range(len(across.values))]
        settled = self.settled(recipe, self.plan(recipe.expression))
        grid = settled.attach(grid_figure(in_rows, [f"{across.name} {value:g}" for value in across.values], rows))
        if tell.image:
            tell.image(0, grid)
        return Result([grid], settled, None, notes=list(notes))

    def settled(self, recipe: Recipe, planned: Plan) -> Recipe:
        """The recipe with all that it leaves to its surroundings: what is loaded, the inputs' digests, versions."""
        import torch

        own, asked = self.model.loading, recipe.loading
        loading = own.model_copy(
            update={
                "renderer": asked.renderer or own.renderer,
                "library": asked.library or own.library,
                "device": self.model.device,
                "max_batch": self.model.max_batch,
                "threads": torch.get_num_threads(),
            }
        )
        paths = [*(node.path for node in planned.photos), *(node.path for node in planned.saved)]
        paths += [source.removeprefix("map:") for source in recipe.rendering.control.values() if source != IN_PYTHON]
        versions = {"pops": __version__, "model": self.model.version, "torch": str(torch.__version__)}
        update = {
            "loading": loading,
            "inputs": {path: digest(path) for path in dict.fromkeys(paths) if is_file(expanded(path))},
            "versions": versions,
        }
        return recipe.model_copy(update=update)

    def plan(self, expression: str | Expression | Node) -> Plan:
        """Plans what an expression will compute, in levels. ExpressionError where it is wrong; touches no file."""
        root, text = root_of(expression)
        return plan(root, self.model.calls, text=text)

    def rendered(
        self,
        embedding: Embedding,
        recipe: Recipe,
        control: Mapping[str, Any],
        tell: Callbacks,
        *,
        output: str = "pil",
        preview_every: int = 5,
    ) -> list[Any]:
        """What the renderer makes of the rows, as the recipe asks."""
        backend = self.model.renderer(recipe.loading.renderer, library=recipe.loading.library)
        asked = recipe.rendering
        controls = ready_controls(backend, asked, control, self.model, tell.control)
        return render_rows(
            backend, embedding, asked, controls, seeds=asked.seeds or recipe.seeds, num_images=recipe.num_images,
            output=output, preview_every=preview_every, on_progress=tell.progress, on_preview=tell.preview,
            on_note=tell.note,
        )  # fmt: skip

    def recipe_of(self, embedding: Embedding) -> Recipe | None:
        """The recipe that made an embedding, where its provenance holds one of this model that gives as many rows."""
        if "version" not in embedding.provenance or "expression" not in embedding.provenance:
            return None
        recipe = Recipe.of_data(embedding.provenance, "the embedding")
        whole = len(recipe.seeds) == embedding.n and self.model.fits(recipe.loading)
        return recipe if whole else None

    def illustrate(
        self,
        trace: Trace,
        nodes: Sequence[Node] | None = None,
        *,
        row: int = 0,
        seed: int = 0,
        recipe: Recipe | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[Node, Image.Image]:
        """Makes an image of every node of a run (or of these), for figures: photos and mixes as they are, the rest
        rendered.

        row: of the batch; recipe: how to render, by default as the model does.
        """
        from pops.images import load_photo

        asked = recipe or Recipe(expression="_")
        wanted = list(trace.values if nodes is None else nodes)
        images: dict[Node, Image.Image] = {
            n: load_photo(n.path, fit=asked.making.fit, size=PHOTO_SIDE) for n in wanted if isinstance(n, Photo)
        }
        for n, mixed in trace.images.items():
            if n in wanted or n == trace.plan.root:
                each = len(mixed) // (trace.rows if n == trace.plan.root else len(trace.values.get(n, mixed)))
                images[n] = mixed[row * each if len(mixed) > each else 0]
        rendered = [n for n in wanted if n not in images and n in trace.values]
        if rendered:
            rows = [trace.values[n] for n in rendered]
            together = Embedding.cat([e[row if e.n > 1 else 0] for e in rows])
            rendering = asked.rendering.model_copy(update={"seeds": None})
            one = asked.model_copy(update={"seeds": (seed,), "num_images": 1, "rendering": rendering})
            control = one.rendering.control
            made = self.rendered(together, one, control, Callbacks(on_progress))
            images |= dict(zip(rendered, made, strict=True))
        return images

    def _figures(
        self,
        wanted: Sequence[str],
        trace: Trace,
        recipe: Recipe,
        finished: Sequence[Image.Image],
        on_progress: OnProgress | None,
    ) -> dict[str, Image.Image]:
        """The tree with every node's image; the equation with its operands' images and every image that was made."""
        from pops.figures.equation import equation_figure
        from pops.figures.tree import tree_figure

        number = recipe.image or 0
        row = number // recipe.num_images
        seed = recipe.seeds[row if len(recipe.seeds) > 1 else 0] + number % recipe.num_images
        leaves = (*trace.plan.photos, *trace.plan.saved, *trace.plan.given)
        nodes = None if "tree" in wanted else [*leaves, trace.plan.root]
        images = self.illustrate(trace, nodes, row=row, seed=seed, recipe=recipe, on_progress=on_progress)
        if trace.mixed is not None:
            images[trace.plan.root] = finished[0]
        drawn = {}
        if "tree" in wanted:
            drawn["tree"] = tree_figure(trace.plan, images)
        if "equation" in wanted:
            drawn["equation"] = equation_figure(trace.plan, images, results=finished[:MOST_RESULTS])
        for shows, figure in drawn.items():
            recipe.model_copy(update={"shows": shows}).attach(figure)
        return drawn


def root_of(expression: str | Expression | Node) -> tuple[Node, str]:
    """Returns the tree of an expression, and the text that errors point into."""
    if isinstance(expression, Node):
        return expression, to_text(expression)
    if isinstance(expression, Expression):
        return expression.root, expression.text
    return parse(expression).root, expression


def with_provenance(trace: Trace, recipe: Recipe) -> Trace:
    """The trace whose result carries the recipe that made it."""
    if trace.embedding is None:
        return trace
    embedding = replace(trace.embedding, provenance=recipe.to_data())
    return replace(trace, embedding=embedding)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Sums round by the number of threads that share them: inside, torch has as many as the recipe says."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _both(first: OnNote, second: OnNote | None) -> OnNote:
    def tell(line: str) -> None:
        first(line)
        if second:
            second(line)

    return tell


def _refuse_what_changes_no_mix(recipe: Recipe, planned: Plan) -> None:
    """Raises ConfigError for settings that would change nothing: a mix is not rendered, and has steps of its own."""
    useless = recipe.rendering.given().keys() - {"enlarge"}
    told = f"a mix is not rendered: {', '.join(sorted(useless))} would change nothing; set it inside mix(...)"
    ensure(not useless, told, ConfigError)
    if all(level.operator in (MIX, SUM) for level in planned.levels):
        useless = recipe.making.given().keys() - {"fit"}
        told = f"this mix has no operators: {', '.join(sorted(useless))} would change nothing; set it inside mix(...)"
        ensure(not useless, told, ConfigError)


def _given_in_python(name: str) -> str:
    return f"{name} was given in Python, and the recipe does not hold it; give it again, or make the image anew"
