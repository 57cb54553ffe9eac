"""Figures of a run: an image of every node, the tree, the equation, and the grid of all images with their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.embedding import Embedding
from pops.errors import ConfigError, ensure
from pops.expression.nodes import Node, Photo
from pops.models.model import PHOTO_SIDE
from pops.recipe import Recipe

if TYPE_CHECKING:
    from PIL import Image

    from pops.parts import Part
    from pops.trace import Trace

FIGURES = ("tree", "equation", "grid")
MOST_RESULTS = 8  # images right of an equation's =
MAX_CELLS = 400  # of one grid

Render: TypeAlias = "Callable[[Embedding, Recipe], list[Any]]"  # rows -> images, as the recipe's rendering says


def images_of_nodes(
    trace: Trace, render: Render, nodes: Sequence[Node] | None = None, *, row: int = 0, seed: int = 0, recipe: Recipe
) -> dict[Node, Image.Image]:
    """Makes an image of every node of a run (or of these): photos and mixes as they are, the rest rendered.

    row: of the trace; seed: of the renderings; recipe: how to render.
    """
    from pops.images import load_photo

    wanted = list(trace.values if nodes is None else nodes)
    images: dict[Node, Image.Image] = {
        n: load_photo(n.path, fit=recipe.making.fit, size=PHOTO_SIDE) for n in wanted if isinstance(n, Photo)
    }
    for n, mixed in trace.images.items():
        if n in wanted or n == trace.plan.root:
            each = len(mixed) // (trace.rows if n == trace.plan.root else len(trace.values.get(n, mixed)))
            images[n] = mixed[row * each if len(mixed) > each else 0]
    rendered = [n for n in wanted if n not in images and n in trace.values]
    if rendered:
        rows = [trace.values[n] for n in rendered]
        together = Embedding.cat([e[row if e.n > 1 else 0] for e in rows])
        rendering = recipe.rendering.model_copy(update={"seeds": None})
        one = recipe.model_copy(update={"seeds": (seed,), "num_images": 1, "rendering": rendering})
        images |= dict(zip(rendered, render(together, one), strict=True))
    return images


class Drawing:
    """What the figures of a run show, gathered while its parts are made.

    wanted: names of FIGURES; rows: of the whole run; captions: of photos, by path. `needed` are the numbers of the
    images that they show.
    """

    def __init__(
        self, wanted: Sequence[str], recipe: Recipe, rows: int, captions: Mapping[str, str] | None = None
    ) -> None:
        from pops.figures.grid import CELL

        self.wanted, self.recipe, self.cell, self.captions = wanted, recipe, CELL, captions or {}
        self.seeds = recipe.rendering.seeds or recipe.seeds
        self.number, count = recipe.image or 0, rows * recipe.num_images
        told = f"a grid has at most {MAX_CELLS} images, this one {count}; ask for fewer"
        ensure("grid" not in wanted or recipe.image is not None or count <= MAX_CELLS, told, ConfigError)
        shown = {"tree": 1, "equation": MOST_RESULTS, "grid": count}
        most = max((shown[name] for name in wanted), default=0)
        self.needed = {self.number} if wanted and recipe.image is not None else set(range(min(most, count)))
        self.results: list[Image.Image] = []  # for the equation
        self.cells: dict[int, Image.Image] = {}  # number -> a small copy, for the grid
        self.trace: Trace | None = None
        self.row = 0  # of the trace

    def see(self, part: Part, trace: Trace, images: Mapping[int, Image.Image]) -> None:
        """Keeps what the figures need of a part. images: by their number in the whole run."""
        if self.number in part.numbers:
            self.trace, self.row = trace, self.number // part.each - part.rows.start
        for number, image in images.items():
            if "equation" in self.wanted and number in self.needed and len(self.results) < MOST_RESULTS:
                self.results.append(image)
            if "grid" in self.wanted and number in self.needed:
                self.cells[number] = self.small(image)

    def small(self, image: Image.Image) -> Image.Image:
        """Returns a copy as large as a cell of the grid."""
        copy = image.copy()
        copy.thumbnail((self.cell, self.cell))
        return copy

    def drawn(self, render: Render) -> dict[str, Image.Image]:
        """Draws the figures, once all parts have been seen."""
        from pops.figures.equation import equation_figure
        from pops.figures.grid import contact_sheet
        from pops.figures.tree import tree_figure

        figures: dict[str, Image.Image] = {}
        trace = self.trace
        if trace is not None and {"tree", "equation"} & set(self.wanted):
            leaves = (*trace.plan.photos, *trace.plan.saved, *trace.plan.given)
            nodes = None if "tree" in self.wanted else [*leaves, trace.plan.root]
            seed = self.seed_of(self.number)
            images = images_of_nodes(trace, render, nodes, row=self.row, seed=seed, recipe=self.recipe)
            if trace.mixed is not None and self.results:
                images[trace.plan.root] = self.results[0]
            captions: dict[Node, str] = {n: self.captions[n.path] for n in trace.plan.photos if n.path in self.captions}
            if "tree" in self.wanted:
                figures["tree"] = tree_figure(trace.plan, images, captions=captions)
            if "equation" in self.wanted:
                figures["equation"] = equation_figure(trace.plan, images, captions=captions, results=self.results)
        if "grid" in self.wanted:
            numbers = sorted(self.cells)
            labels = [f"seed {self.seed_of(number)}" for number in numbers]
            each = self.recipe.num_images
            across = each if 1 < each <= MOST_RESULTS and self.recipe.image is None else None
            figures["grid"] = contact_sheet([self.cells[number] for number in numbers], labels, across)
        return figures

    def seed_of(self, number: int) -> int:
        """Returns the seed of an image of the whole run."""
        row, copy = divmod(number, self.recipe.num_images)
        return self.seeds[row if len(self.seeds) > 1 else 0] + copy
