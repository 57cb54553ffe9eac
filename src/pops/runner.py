"""Runner: makes what a recipe asks for with one model: the plan's trace, the images, figures, grids.

Each image is handed out with its recipe, complete: what was loaded, the inputs' digests, versions.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from pops.caution import Caution
from pops.diffusion.sizes import Sizes, enlarged, sizes_of
from pops.embedding import Embedding
from pops.errors import ConfigError, EmbeddingError, PopsError, ensure
from pops.execute import MAX_ROWS, Executor
from pops.expression import Expression, parse
from pops.expression.grammar import to_text
from pops.expression.nodes import MIX, Call, Node, is_mix
from pops.expression.plan import SUM, Plan, plan
from pops.files import digest, expanded, is_file, shown
from pops.illustrate import FIGURES, MAX_CELLS, Drawing
from pops.magicmix.spec import mix_options
from pops.models.model import Model
from pops.parts import Part, parts_of
from pops.progress import Callbacks, OnNote, progress_of_part
from pops.recipe import Recipe, Rendering
from pops.rendering import check_controls, check_rendering, image_seeds, ready_controls, render_rows
from pops.result import Result
from pops.seeds import check_seed
from pops.trace import Trace
from pops.version import __version__

if TYPE_CHECKING:
    from PIL import Image

    from pops.render.base import Control, Renderer

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
        """Makes all images of a recipe; see Pops.run."""
        made = list(self.stream(recipe, given, tell, figures=figures, render=render, embed=embed))
        settled, trace = made[0].recipe, Trace.joined([part.trace for part in made if part.trace is not None])
        return Result(
            [image for part in made for image in part],
            settled,
            with_provenance(trace, settled),
            made[-1].figures,
            [latent for part in made for latent in part.latents],
            list(dict.fromkeys(note for part in made for note in part.notes)),
            [number for part in made for number in part.numbers],
            list(trace.unfamiliar.values()),
        )

    def stream(
        self,
        recipe: Recipe,
        given: Mapping[str, Any],
        tell: Callbacks,
        *,
        figures: Sequence[str] = (),
        render: bool = True,
        embed: bool = False,
        only: Collection[int] | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> Iterator[Result]:
        """Makes the images of a recipe part by part; see Pops.stream."""
        # 1) All that can be refused is refused before a network runs.
        planned = self.plan(recipe.expression)
        mixed, own = is_mix(planned.root), [] if recipe.shows == "image" else [recipe.shows]
        wanted = [*figures, *own]
        shown = (render and not own) or bool({"equation", "grid"} & set(wanted))
        control = _controls(recipe, given)
        _refuse(recipe, planned, given, figures, rendered=(not mixed and (shown or bool(wanted))) or bool(wanted))
        if shown and not mixed:
            self._check(recipe, control)
        rows = self.rows(recipe, planned, given)
        settled, parts = self.settled(recipe, planned, rows), self.parts(recipe, rows, images=shown or mixed)
        drawing = Drawing(wanted, settled, rows, captions)
        asked = set(recipe.numbers(rows)) if only is None else set(recipe.numbers(rows)) & set(only)
        asked = asked if shown or mixed or not own else set()
        needed = asked | drawing.needed
        if embed and mixed:  # a row's embedding is that of its first image
            needed |= {number - number % recipe.num_images for number in asked}
        parts = [part for part in parts if not needed.isdisjoint(part.numbers)]

        # 2) Each part: the expression, then its images. A mix has made them, all else is rendered.
        logger.info("running %s with seeds %s", recipe.expression[:200], list(recipe.seeds)[:8])
        executor, ready = Executor(self.model), cache(lambda: self.controls(recipe, control, tell))
        notes: list[str] = []
        _tell_changed(recipe, settled, _into(notes, tell.note))
        for i, part in enumerate(parts):
            told = replace(tell, progress=progress_of_part(tell.progress, i, len(parts)), note=_into(notes, tell.note))
            trace = executor.run(
                planned,
                seeds=settled.seeds,
                making=recipe.making,
                given=given,
                part=part,
                renderer=recipe.loading.renderer,
                own=recipe.loading.model is not None,
                embed=embed and part.first,
                upscale=recipe.rendering.upscale,
                on_progress=told.progress,
                on_note=told.note,
            )
            images = trace.mixed or []
            if shown and not mixed:
                images = self.rendered(trace.result, settled.of_rows(part.rows), ready(), told, part.copies)
            numbered = zip(part.numbers, images, strict=bool(images))
            done = {n: self._finished(image, settled, part, n, rows) for n, image in numbered if n in needed}
            drawing.see(part, trace, done)
            kept = [number for number in done if number in asked and not own]
            for number in kept:
                if tell.image:
                    tell.image(number, done[number])
            latents = [trace.latents[part.numbers.index(number)] for number in kept if trace.latents]
            trace = with_provenance(trace, settled.of_rows(part.rows))
            warnings = list(trace.unfamiliar.values())
            yield Result([done[number] for number in kept], settled, trace, {}, latents, notes, kept, warnings)
            notes = []

        # 3) The figures, in a result of their own.
        if wanted and parts:
            drawn = drawing.drawn(lambda rows, how: self.rendered(rows, how, ready(), Callbacks(tell.progress)))
            owns = {name: settled.of_figure(name) for name in drawn}
            drawn = {name: owns[name].attach(_enlarged(figure, owns[name])) for name, figure in drawn.items()}
            made = [drawn[name] for name in own]
            for image in made if tell.image else ():
                tell.image(0, image)  # type: ignore[misc]  # there is one
            yield Result(made, settled, None, drawn, [], notes, [0] * len(made))

    def rows(self, recipe: Recipe, planned: Plan, given: Mapping[str, Any]) -> int:
        """Returns how many rows the result has: one per seed, or as many as an operand brings.

        Raises EmbeddingError where operands disagree, ConfigError for other seeds than one or one per row.
        """
        brought = [_rows_of_file(node.path) for node in planned.saved]
        brought += [value.n for value in given.values() if isinstance(value, Embedding)]
        rows = max([len(recipe.seeds), *brought])
        for count in brought:
            told = f"an operand has {count} rows and another {rows}; give 1 or as many"
            ensure(count in (1, rows), told, EmbeddingError)
        image_seeds(rows, recipe.rendering.seeds or recipe.seeds, recipe.num_images)
        return rows

    def parts(self, recipe: Recipe, rows: int, *, images: bool = True) -> list[Part]:
        """Returns the parts in which a recipe is made. images: False where only embeddings are wanted."""
        each = recipe.num_images
        if not images:
            return parts_of(rows, each, each * MAX_ROWS)
        alone = is_mix(self.plan(recipe.expression).root) or not self._renderer(recipe).capabilities.together
        return parts_of(rows, each, self.model.max_batch if alone else rows * each)

    def recipe_of_image(self, settled: Recipe, part: Part, number: int, rows: int) -> Recipe:
        """Returns the recipe of one image: with its part's seeds alone, if the rows come of seeds and make parts.

        settled: of the whole run; number: of the image in it; rows: of the run.
        """
        planned = self.plan(settled.expression)
        whole = len(part.rows) == rows or bool(planned.saved) or bool(planned.given)
        own = settled if whole else settled.of_rows(part.rows)
        if is_mix(planned.root) and settled.shows == "image":  # a mix is not rendered: that is for figures
            own = own.model_copy(update={"rendering": _of_mix(settled.rendering)})
        return own.model_copy(update={"image": number if whole else number - part.rows.start * part.each})

    def recipes(self, settled: Recipe, rows: int) -> dict[int, Recipe]:
        """Returns the recipe of every image of a run, by its number."""
        parts = self.parts(settled, rows)
        asked = set(settled.numbers(rows))
        return {n: self.recipe_of_image(settled, part, n, rows) for part in parts for n in part.numbers if n in asked}

    def _finished(self, image: Image.Image, settled: Recipe, part: Part, number: int, rows: int) -> Image.Image:
        return self.finished(image, self.recipe_of_image(settled, part, number, rows))

    def _check(self, recipe: Recipe, control: Mapping[str, Any]) -> None:
        """Refuses what the renderer cannot take; reads the renderer, and runs nothing."""
        backend = self._renderer(recipe)
        check_rendering(backend, recipe.rendering)
        check_controls(backend, _drawn(recipe.rendering, self._sizes(recipe)), control)
        last = max(recipe.rendering.seeds or recipe.seeds) + recipe.num_images - 1
        check_seed(last)

    def _renderer(self, recipe: Recipe) -> Renderer:
        asked = recipe.loading
        return self.model.renderer(asked.renderer, library=asked.library, own=asked.model is not None)

    def finished(self, image: Image.Image, recipe: Recipe) -> Image.Image:
        """Returns one image as it is handed out: enlarged if that was asked for, with its recipe."""
        found = image.info.get("pops", {}).get("found")  # by the renderer "retrieval"
        return recipe.model_copy(update={"found": found}).attach(_enlarged(image, recipe))

    def controls(self, recipe: Recipe, sources: Mapping[str, Any], tell: Callbacks) -> tuple[Control, ...]:
        """Makes the control images of a recipe's rendering. sources: kind -> photo."""
        asked = _drawn(recipe.rendering, self._sizes(recipe))
        return ready_controls(self._renderer(recipe), asked, sources, self.model, tell.control)

    def grid(self, recipe: Recipe, given: Mapping[str, Any], tell: Callbacks) -> Result:
        """A labelled grid of mixes: the first axis to the right, the second downwards."""
        from pops.figures.grid import grid_figure, labels

        root, axes = parse(recipe.expression).root, recipe.sweep
        ensure(is_mix(root), "a sweep is over the options of a mix; give mix(layout, content)", ConfigError)
        assert isinstance(root, Call)
        cells: list[dict[str, float]] = [
            dict(zip((axis.name for axis in axes), cell)) for cell in product(*(axis.values for axis in axes))
        ]
        told = f"a grid has at most {MAX_CELLS} cells, this one {len(cells)}; sweep fewer values"
        ensure(len(cells) <= MAX_CELLS, told, ConfigError)
        options = [mix_options({**dict(root.options), **cell}) for cell in cells]
        images, notes, warnings = [], dict[str, None](), dict[Caution, None]()
        for i, own in enumerate(options):
            expression = to_text(replace(root, options=own))
            cell = recipe.model_copy(update={"expression": expression, "sweep": (), "image": None})
            shown = progress_of_part(tell.progress, i, len(cells))
            made = self.run(cell, given, Callbacks(shown, note=tell.note))
            images.append(made[0])
            notes |= dict.fromkeys(made.notes)
            warnings |= dict.fromkeys(made.warnings)
        across, down = axes[0], axes[1] if len(axes) > 1 else None
        rows = [""] if down is None else labels(down.name, down.values)
        in_rows = [images[i * len(rows) + j] for j in range(len(rows)) for i in range(len(across.values))]
        settled = self.settled(recipe, self.plan(recipe.expression))
        grid = settled.attach(grid_figure(in_rows, labels(across.name, across.values), rows))
        if tell.image:
            tell.image(0, grid)
        return Result([grid], settled, None, notes=list(notes), warnings=list(warnings))

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
        controls: Sequence[Control],
        tell: Callbacks,
        copies: range | None = None,
        *,
        output: str = "pil",
        preview_every: int = 5,
    ) -> list[Any]:
        """What the renderer makes of the rows, as the recipe asks. copies: which images of each row, by default all."""
        backend, sizes = self._renderer(recipe), self._sizes(recipe)
        asked = _drawn(recipe.rendering, sizes)
        images = render_rows(
            backend, embedding, asked, controls, seeds=asked.seeds or recipe.seeds,
            copies=range(recipe.num_images) if copies is None else copies, output=output, preview_every=preview_every,
            on_progress=tell.progress, on_preview=tell.preview, on_note=tell.note,
        )  # fmt: skip
        return (
            images if output == "latent" or sizes.factor == 1 else enlarged(images, self.model.upscaler(backend), sizes)
        )

    def _sizes(self, recipe: Recipe) -> Sizes:
        """What the renderer draws for a recipe, and what comes out."""
        backend, asked = self._renderer(recipe), recipe.rendering
        able, upscaler = backend.capabilities, self.model.upscaler(backend)
        return sizes_of(
            asked.size, asked.upscale, able.native, able.multiple, 1 if upscaler is None else upscaler.scale
        )

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


def root_of(expression: str | Expression | Node) -> tuple[Node, str]:
    """Returns the tree of an expression, and the text that errors point into."""
    if isinstance(expression, Node):
        return expression, to_text(expression)
    if isinstance(expression, Expression):
        return expression.root, expression.text
    return parse(expression).root, expression


def with_provenance(trace: Trace, recipe: Recipe) -> Trace:
    """The trace whose result carries the recipe that made it."""
    return trace if trace.embedding is None else replace(trace, embedding=described(trace.embedding, recipe))


def described(embedding: Embedding, recipe: Recipe) -> Embedding:
    """The embedding with the recipe that made it."""
    return replace(embedding, provenance={**recipe.to_data(), ROWS: _digest(embedding)})


def _digest(embedding: Embedding) -> str:
    """16 hex digits that tell these rows, in this order, from all others."""
    return hashlib.sha256(embedding.vectors.numpy().tobytes()).hexdigest()[:16]


def _enlarged(image: Image.Image, recipe: Recipe) -> Image.Image:
    from PIL.Image import Resampling

    times = recipe.rendering.enlarge
    return image.copy() if times == 1 else image.resize((image.width * times, image.height * times), Resampling.LANCZOS)


def _drawn(rendering: Rendering, sizes: Sizes) -> Rendering:
    """A rendering with the size that the renderer draws, where that is not its own."""
    return rendering if rendering.size is None else rendering.model_copy(update={"size": sizes.drawn})


def _of_mix(rendering: Rendering) -> Rendering:
    """What a mix takes of a rendering."""
    return Rendering(enlarge=rendering.enlarge, upscale=rendering.upscale)


def _rows_of_file(path: str) -> int:
    """Returns how many vectors a saved embedding has; 1 for a latent."""
    from pops.magicmix.latents import is_latent

    return 1 if is_latent(path) else Embedding.load(path).n


def _tell_changed(recipe: Recipe, settled: Recipe, tell: OnNote) -> None:
    """Tells which inputs are not those that the recipe was made with."""
    changed = [path for path, was in recipe.inputs.items() if settled.inputs.get(path, was) != was]
    if changed:
        tell(f"{', '.join(changed)} changed since the recipe was made; the image will differ")


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


def check_trust(foreign: Mapping[str, str]) -> None:
    """Raises ConfigError for what a recipe of anyone's would load; see Recipe.foreign."""
    listed = ", ".join(f"{setting} {shown(name)}" for setting, name in foreign.items())
    told = f"the recipe comes from a file and would load {listed}; add --trust if you trust its author"
    ensure(not foreign, f"{told} (in Python recipe.trusted()), or name your own", ConfigError)


def _into(notes: list[str], other: OnNote | None) -> OnNote:
    """Returns a callback that keeps a note, and hands it on."""

    def tell(line: str) -> None:
        notes.append(line)
        if other:
            other(line)

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
        kept = _of_mix(recipe.rendering).given() if is_mix(planned.root) else ("enlarge",)
        what = "a mix is not rendered" if is_mix(planned.root) else "no image is rendered"
        useless = {name: _OPTION.get(name, name) for name in recipe.rendering.given() if name not in kept}
        _refuse_useless(useless, what, planned)
    if all(level.operator in (MIX, SUM) for level in planned.levels):
        useless = {name: name for name in recipe.making.given() if name != "fit"}
        _refuse_useless(useless, "there is no operator to sample", planned)


def _refuse_useless(useless: Mapping[str, str], why: str, planned: Plan) -> None:
    """Raises ConfigError if there are such settings (field -> option), and says which of them a mix takes itself."""
    from pops.magicmix.operands import MixSettings

    inside = sorted(name for name in useless if is_mix(planned.root) and name in MixSettings.__dataclass_fields__)
    out = sorted(option for name, option in useless.items() if name not in inside)
    advice = [f"set {', '.join(inside)} inside mix(...)"] * bool(inside) + [f"leave out {', '.join(out)}"] * bool(out)
    told = f"{why}: {', '.join(sorted(useless.values()))} would change nothing; {', '.join(advice)}"
    ensure(not useless, told, ConfigError)


# Of Rendering's fields, where the option has another name.
_OPTION = {name: f"render_{name}" for name in ("steps", "guidance", "guidance_interval")} | {"seeds": "render_seed"}
