"""Checks a recipe that came over HTTP: that it names only what the server has, asks for what is loaded, and stays
within the limits. Computes nothing, and touches no path of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pops.errors import ConfigError, ExpressionError, PhotoError, ensure, suggest
from pops.expression import parse
from pops.expression.nodes import Given, Node, Saved, is_mix, walk
from pops.expression.plan import Plan, plan
from pops.models.model import Model
from pops.recipe import Recipe
from pops.render import names as renderer_names
from pops.server.references import MAP, PHOTO, photo_id, photos_in, replaced
from pops.server.settings import Limits
from pops.server.store import Job

FREE = ("renderer", "library", "model", "threads")  # of a recipe's loading, checked one by one
NATIVE = 1024  # pixels per side of an image whose size is not said: no shipped renderer makes larger ones


@dataclass(frozen=True)
class Checker:
    """What a server has, and takes."""

    models: Mapping[str, Model]  # by name; they are asked for their specs alone
    loaded: Callable[[str], Mapping[str, Any] | None]  # a model's loading, as its worker told it
    default: str
    libraries: tuple[str, ...]
    photo: Callable[[str], bool]  # whether there is a photo of this name
    limits: Limits

    def recipe(self, data: Mapping[str, Any]) -> tuple[Recipe, str, list[str]]:
        """Returns the recipe of a request, the model that is to run it, and the ids of its photos.

        Raises ConfigError, ExpressionError, OperandError or PhotoError for one that cannot be run here.
        """
        recipe = Recipe.of_data(data, "the request")
        model = recipe.loading.model or self.default
        known = ", ".join(self.models)
        told = f"the server has no model {model!r}{suggest(model, self.models)}; choose from {known}"
        ensure(model in self.models, told, ConfigError)
        planned = self.plan(recipe.expression, model)
        self._sizes(recipe, planned)
        self._loading(recipe, model)
        names = [name for name, _ in photos_in(parse(recipe.expression).root)]
        for source in recipe.rendering.control.values():
            name = source.removeprefix(MAP)
            ensure(self.photo(name), self._unknown(name), PhotoError)
            names.append(name)
        ids = [found for name in dict.fromkeys(names) if (found := photo_id(name))]
        return recipe.trusted(), model, ids

    def plan(self, text: str, model: str) -> Plan:
        """Plans an expression of a request; its errors carry the place of the mistake in the text."""
        root = self.parsed(text)
        self._operands(root, text)
        return plan(replaced(root, str), self.models[model].calls, text=text)

    def parsed(self, text: str) -> Node:
        """Parses an expression of a request, within the limits of its length and depth."""
        told = f"the expression has {len(text)} characters, and the server takes {self.limits.length}; split it up"
        ensure(len(text) <= self.limits.length, told, ConfigError)
        root = parse(text).root
        told = f"the expression is {root.depth} levels deep, and the server takes {self.limits.depth}; split it up"
        ensure(root.depth <= self.limits.depth, told, ConfigError)
        return root

    def _operands(self, root: Node, text: str) -> None:
        for node in walk(root):
            if isinstance(node, (Saved, Given)):
                what = node.path if isinstance(node, Saved) else f"${node.key}"
                raise ExpressionError(f"{what[:60]} is not on the server; upload a photo and name it", text, node.span)
        for name, node in photos_in(root):
            if not self.photo(name):
                raise ExpressionError(self._unknown(name), text, node.span)

    @staticmethod
    def _unknown(name: str) -> str:
        return f"the server has no photo {name[:80]!r}; upload it (POST /photos), and write {PHOTO} and its id"

    def _sizes(self, recipe: Recipe, planned: Plan) -> None:
        limits, cells = self.limits, 1
        for axis in recipe.sweep:
            cells *= len(axis.values)
        count = len(recipe.numbers(len(recipe.seeds))) * cells
        told = f"the recipe asks for {count} images, and the server makes {limits.images} at a time; send several jobs"
        ensure(count <= limits.images, told, ConfigError)
        height, width = recipe.rendering.size or (NATIVE if recipe.rendering.enlarge > 1 else 1,) * 2
        pixels = height * width * (recipe.rendering.enlarge * (recipe.rendering.upscale or 1)) ** 2
        told = f"the images would have {pixels} pixels each, and the server makes {limits.image_pixels}; ask for less"
        ensure(pixels <= limits.image_pixels, told, ConfigError)
        threads = recipe.loading.threads or 1
        told = (
            f"the recipe asks for {threads} threads, and the server takes {limits.threads}; leave loading.threads out"
        )
        ensure(threads <= limits.threads, told, ConfigError)

    def _loading(self, recipe: Recipe, model: str) -> None:
        """Refuses what would be loaded beside what is: recipes of a stranger load nothing."""
        asked, there = recipe.loading, self.loaded(model) or {}
        ensure(bool(there), f"the model {model} is being loaded; try again in a moment", ConfigError)
        known = renderer_names()
        own = there.get("renderer")
        told = f"the server has no renderer {asked.renderer!r}; choose from {', '.join(known)}"
        ensure(asked.renderer in (None, own, *known), told, ConfigError)
        shown = ", ".join(self.libraries) or "none is loaded"
        told = f"the server has no library {asked.library!r}; choose from: {shown}"
        ensure(asked.library is None or asked.library in self.libraries, told, ConfigError)
        ensure(asked.renderer != "retrieval" or asked.library is not None,
               f"the renderer retrieval needs loading.library; choose from: {shown}", ConfigError)  # fmt: skip
        for name, value in asked.model_dump(mode="json").items():
            loaded = there.get(name)
            same = value in (None, {}, loaded) or (name == "device" and value == "auto")
            told = f"the server has {name} {loaded!r}, the recipe asks for {value!r}; leave loading.{name} out"
            ensure(name in FREE or same, told, ConfigError)


def together(one: Job, other: Job) -> bool:
    """Whether images of two jobs may be computed in one batch: only expressions and seeds differ, and each is asked for
    as plain images of a rendered embedding. Previews delay nobody's job."""
    return (
        one.quick == other.quick
        and not (one.deaths or other.deaths or one.images or other.images)
        and _shape(one) is not None
        and _shape(one) == _shape(other)
    )


def _shape(job: Job) -> dict[str, Any] | None:
    """What must agree; None for a job that is always computed alone."""
    data = {key: value for key, value in job.recipe.items() if key not in ("expression", "seeds", "inputs", "versions")}
    rendering = job.recipe.get("rendering", {})
    plain = not job.recipe.get("sweep") and job.recipe.get("shows", "image") == "image" and "image" not in job.recipe
    if not plain or rendering.get("control") or rendering.get("seeds") or job.recipe.get("num_images", 1) > 1:
        return None
    mixed = any(is_mix(node) for node in walk(parse(job.recipe["expression"]).root))
    return None if mixed else data
