"""Runner: makes what a recipe asks for with one model: the plan's trace, the images, figures, grids.

Each image is handed out with its recipe, complete: what was loaded, the inputs' digests, versions.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pops.embedding import Embedding
from pops.errors import ConfigError, PopsError, ensure
from pops.execute import Executor
from pops.expression import Expression, parse
from pops.expression.grammar import to_text
from pops.expression.nodes import MIX, Call, Node, Photo, is_mix
from pops.expression.plan import SUM, Plan, plan
from pops.files import digest, expanded, is_file
from pops.magicmix.spec import mix_options
from pops.models.model import PHOTO_SIDE, Model
from pops.progress import Callbacks, OnNote, OnProgress, progress_of_part
from pops.recipe import Recipe, Rendering
from pops.rendering import check_controls, check_rendering, ready_controls, render_rows
from pops.result import Result
from pops.seeds import check_seed
from pops.trace import Trace
from pops.version import __version__

if TYPE_CHECKING:
    from PIL import Image

    from pops.render.base import Renderer

MOST_RESULTS = 8  # images right of an equation's =
MAX_CELLS = 400  # of one grid
ROWS = "rows"  # in an embedding's provenance: the digest of its vectors

logger = logging.getLogger("pops")


class Runner:
    """Runs recipes with one model. Threads may share it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(
        self,
        recipe: Recipe,
        given: Mapping[str, Any],
        tell: Callbacks,
        *,
        figures: Sequence[str] = (),
        render: bool = True,
        embed: bool = False,
    ) -> Result:
        """Makes the images of a recipe; see Pops.run."""
        # 1) All that can be refused is refused before a network runs.
        planned = self.plan(recipe.expression)
        mixed, wanted = is_mix(planned.root), [*figures, *([] if recipe.shows == "image" else [recipe.shows])]
        shown = (render and recipe.shows == "image") or "equation" in wanted
        control = _controls(recipe, given)
        _refuse(recipe, planned, given, figures, rendered=(not mixed and (shown or bool(wanted))) or bool(wanted))
        if shown and not mixed:
            self._check(recipe, control)

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
            renderer=recipe.loading.renderer,
            own=recipe.loading.model is not None,
            embed=embed or not mixed,
            on_progress=tell.progress,
            on_note=tell.note,
        )
        settled = self.settled(recipe, planned, trace.rows)
        trace = with_provenance(trace, settled)
        changed = [path for path, was in recipe.inputs.items() if settled.inputs.get(path, was) != was]
        if changed and tell.note:
            tell.note(f"{', '.join(changed)} changed since the recipe was made; the image will differ")

        # 3) Its images: a mix has made them, all else is rendered.
        images = trace.mixed or []
        if not mixed and shown:
            images = self.rendered(trace.result, recipe, control, tell)
        chosen = range(len(images)) if recipe.image is None else [recipe.image]
        finished = [self.finished(images[i], _of_image(settled, mixed), i) for i in chosen if images]

        # 4) Figures.
        drawn = self._figures(wanted, trace, settled, finished, control, tell.progress) if wanted else {}
        if recipe.shows != "image":
            finished = [drawn[recipe.shows]]
        for i, image in enumerate(finished):
            if tell.image:
                tell.image(i, image)
        latents = [trace.latents[i] for i in chosen] if trace.latents else []
        return Result(finished, settled, trace, drawn, latents, notes)

    def _check(self, recipe: Recipe, control: Mapping[str, Any]) -> None:
        """Refuses what the renderer cannot take; reads the renderer, and runs nothing."""
        backend = self._renderer(recipe)
        check_rendering(backend, recipe.rendering)
        check_controls(backend, recipe.rendering, control)
        last = max(recipe.rendering.seeds or recipe.seeds) + recipe.num_images - 1
        check_seed(last)

    def _renderer(self, recipe: Recipe) -> Renderer:
        asked = recipe.loading
        return self.model.renderer(asked.renderer, library=asked.library, own=asked.model is not None)

    def finished(self, image: Image.Image, recipe: Recipe, number: int) -> Image.Image:
        """Returns one image as it is handed out: enlarged if that was asked for, with its recipe."""
        found = image.info.get("pops", {}).get("found")  # by the renderer "retrieval"
        return recipe.model_copy(update={"image": number, "found": found}).attach(_enlarged(image, recipe))

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
            made = self.run(cell, given, Callbacks(shown, note=tell.note))
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

    def settled(self, recipe: Recipe, planned: Plan, rows: int = 1) -> Recipe:
        """Returns the recipe with all that it leaves to its surroundings: what is loaded, inputs' digests, versions.

        rows: of the result; where an operand brought more of them than there are seeds, each row has the one seed.
        """
        import torch

        own, asked = self.model.loading, recipe.loading
        listed = asked.model is not None  # then None means none, and not what was loaded
        loading = own.model_copy(
            update={
                "renderer": asked.renderer or (None if listed else own.renderer),
                "library": asked.library or (None if listed else own.library),
                "device": self.model.device,
                "max_batch": self.model.max_batch,
                "threads": torch.get_num_threads(),
            }
        )
        paths = [*(node.path for node in planned.photos), *(node.path for node in planned.saved)]
        paths += [source.removeprefix("map:") for source in recipe.rendering.control.values()]
        versions = {"pops": __version__, "model": self.model.version, "torch": str(torch.__version__)}
        update = {
            "loading": loading,
            "inputs": {path: digest(path) for path in dict.fromkeys(paths) if is_file(expanded(path))},
            "versions": versions,
            "seeds": recipe.seeds * rows if rows > len(recipe.seeds) else recipe.seeds,
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
        backend, asked = self._renderer(recipe), recipe.rendering
        controls = ready_controls(backend, asked, control, self.model, tell.control)
        return render_rows(
            backend, embedding, asked, controls, seeds=asked.seeds or recipe.seeds, num_images=recipe.num_images,
            output=output, preview_every=preview_every, on_progress=tell.progress, on_preview=tell.preview,
            on_note=tell.note,
        )  # fmt: skip

    def recipe_of(self, embedding: Embedding) -> Recipe | None:
        """Returns the recipe that made just these rows with this model; None where the provenance holds no such one."""
        about = dict(embedding.provenance)
        if about.pop(ROWS, None) != _digest(embedding):
            return None
        try:
            recipe = Recipe.of_data(about, "the embedding")
            mixed = is_mix(self.plan(recipe.expression).root)
        except PopsError:  # of a later format, or of an operator that is not here
            return None
        if mixed or len(recipe.seeds) != embedding.n or not self.model.fits(recipe.loading):
            return None
        return recipe.model_copy(update={"shows": "image", "image": None})

    def illustrate(
        self,
        trace: Trace,
        nodes: Sequence[Node] | None = None,
        *,
        row: int = 0,
        seed: int = 0,
        recipe: Recipe | None = None,
        control: Mapping[str, Any] | None = None,
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
            made = self.rendered(together, one, control or {}, Callbacks(on_progress))
            images |= dict(zip(rendered, made, strict=True))
        return images

    def _figures(
        self,
        wanted: Sequence[str],
        trace: Trace,
        recipe: Recipe,
        finished: Sequence[Image.Image],
        control: Mapping[str, Any],
        on_progress: OnProgress | None,
    ) -> dict[str, Image.Image]:
        """The tree with every node's image; the equation with its operands' images and every image that was made."""
        from pops.figures.equation import equation_figure
        from pops.figures.tree import tree_figure

        number = recipe.image or 0
        row = number // recipe.num_images
        seeds = recipe.rendering.seeds or recipe.seeds
        seed = seeds[row if len(seeds) > 1 else 0] + number % recipe.num_images
        leaves = (*trace.plan.photos, *trace.plan.saved, *trace.plan.given)
        nodes = None if "tree" in wanted else [*leaves, trace.plan.root]
        images = self.illustrate(
            trace, nodes, row=row, seed=seed, recipe=recipe, control=control, on_progress=on_progress
        )
        if trace.mixed is not None:
            images[trace.plan.root] = finished[0]
        drawn = {}
        if "tree" in wanted:
            drawn["tree"] = tree_figure(trace.plan, images)
        if "equation" in wanted:
            drawn["equation"] = equation_figure(trace.plan, images, results=finished[:MOST_RESULTS])
        for shows, figure in drawn.items():
            own = recipe.model_copy(update={"shows": shows})
            if shows != recipe.shows:  # drawn beside images, and never enlarged with them
                own = own.model_copy(update={"rendering": own.rendering.model_copy(update={"enlarge": 1})})
            drawn[shows] = own.attach(_enlarged(figure, own))
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
    about = {**recipe.to_data(), ROWS: _digest(trace.embedding)}
    return replace(trace, embedding=replace(trace.embedding, provenance=about))


def _digest(embedding: Embedding) -> str:
    """16 hex digits that tell these rows, in this order, from all others."""
    return hashlib.sha256(embedding.vectors.numpy().tobytes()).hexdigest()[:16]


def _enlarged(image: Image.Image, recipe: Recipe) -> Image.Image:
    from PIL.Image import Resampling

    times = recipe.rendering.enlarge
    return image.copy() if times == 1 else image.resize((image.width * times, image.height * times), Resampling.LANCZOS)


def _of_image(recipe: Recipe, mixed: bool) -> Recipe:
    """Returns the recipe of an image without what only figures used: a mix is not rendered."""
    if not mixed or recipe.shows != "image":
        return recipe
    return recipe.model_copy(update={"rendering": Rendering(enlarge=recipe.rendering.enlarge)})


def _controls(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns kind -> photo, those that were given in Python in place of their `$key`."""
    found: dict[str, Any] = {}
    for kind, source in recipe.rendering.control.items():
        found[kind] = given[source[1:]] if source.startswith("$") and source[1:] in given else source
    return found


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Has torch use as many threads as a recipe says, inside: sums round by the number of threads that share them.

    The number belongs to the whole process, so recipes that need another than the current one run one at a time.
    """
    import torch

    if count is None or count == torch.get_num_threads():
        yield
        return
    with _other_threads:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


_other_threads = threading.RLock()


def _both(first: OnNote, second: OnNote | None) -> OnNote:
    def tell(line: str) -> None:
        first(line)
        if second:
            second(line)

    return tell


def _refuse(recipe: Recipe, planned: Plan, given: Mapping[str, Any], figures: Sequence[str], *, rendered: bool) -> None:
    """Raises ConfigError for settings that would change nothing, and for values that are not there."""
    for name in recipe.in_python():
        told = f"{name} was given in Python, and the recipe does not hold it; give it again, or make the image anew"
        ensure(name[1:] in given, told, ConfigError)
    unknown = sorted({f"${key}" for key in given} - set(recipe.in_python()))
    ensure(not unknown, f"the expression has no {', '.join(unknown)}; take the values out of given", ConfigError)
    for name in figures:
        ensure(name in FIGURES, f"unknown figure {name!r}; choose from {', '.join(FIGURES)}", ConfigError)
        from pops.figures.nodes import check_size

        check_size(planned.root, name)
    if not rendered:
        useless = [_OPTION.get(name, name) for name in recipe.rendering.given() if name != "enlarge"]
        what = "a mix is not rendered" if is_mix(planned.root) else "no image is rendered"
        inside = "; set it inside mix(...)" if is_mix(planned.root) else ""
        ensure(not useless, f"{what}: {', '.join(sorted(useless))} would change nothing{inside}", ConfigError)
    if all(level.operator in (MIX, SUM) for level in planned.levels):
        useless = [name for name in recipe.making.given() if name != "fit"]
        told = f"there is no operator to sample: {', '.join(sorted(useless))} would change nothing"
        ensure(not useless, f"{told}{'; set it inside mix(...)' if is_mix(planned.root) else ''}", ConfigError)


FIGURES = ("tree", "equation")
_OPTION = {"steps": "render_steps", "guidance": "render_guidance", "seeds": "render_seed"}  # of Rendering's fields
