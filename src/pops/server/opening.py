"""Opens what pops made elsewhere: an image's recipe, or a recipe's JSON, in the names that this server has.

A photo is known by the digest that the recipe tells, whatever it was called; nothing that a recipe names is read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, PhotoError, ensure
from pops.expression import parse
from pops.expression.grammar import to_text
from pops.expression.nodes import Given, Saved, walk
from pops.expression.trees import Tree, to_tree
from pops.files import parse_json, read_bytes
from pops.recipe import Loading, Recipe
from pops.render import names as renderer_names
from pops.server.core import Core
from pops.server.references import MAP, PHOTO, photos_in, renamed

_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_KEPT = ("model", "renderer", "library")  # of a recipe's loading, where the server has them
_OTHER = ("model", "decoder", "operators", "renderer", "library", "adapter", "controlnets")  # of which images depend


@dataclass(frozen=True)
class Opened:
    """A recipe that the server can run, but for what is missing."""

    recipe: dict[str, Any]
    text: str
    tree: Tree
    missing: list[str]  # photos and embeddings that the server has not
    notes: list[str]


async def open_file(core: Core, path: Path) -> Opened:
    """Returns the recipe in a file of anyone's. PhotoError or ConfigError where there is none."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        try:
            data = await asyncio.to_thread(lambda: parse_json(read_bytes(path, core.settings.limits.json_body)))
        except ValueError as e:
            raise ConfigError(f"the file cannot be read as a recipe ({e}); choose another") from None
    else:
        data = await core.decoder.recipe(path)
        told = "the picture carries no recipe of pops; only unedited images that pops wrote do"
        ensure(data is not None, told, PhotoError)
    told = "the file holds no recipe: no JSON object with an expression; choose another"
    ensure(isinstance(data, dict) and isinstance(data.get("expression"), str), told, ConfigError)
    recipe = Recipe.of_data(data, "the file").trusted()
    return await asyncio.to_thread(_here, core, recipe)


def _here(core: Core, recipe: Recipe) -> Opened:
    """Returns a recipe of elsewhere as the server would run it."""
    root = core.checker.parsed(recipe.expression)
    names = [name for name, _ in photos_in(root)] + [s.removeprefix(MAP) for s in recipe.rendering.control.values()]
    known = {name: _known(core, recipe, name) for name in dict.fromkeys(names)}
    missing = [name for name, found in known.items() if found is None]
    missing += [n.path if isinstance(n, Saved) else f"${n.key}" for n in walk(root) if isinstance(n, (Saved, Given))]
    loading, notes = _loading(core, recipe.loading)
    update: dict[str, Any] = {"inputs": {}, "versions": {}, "found": None, "loading": loading}
    own = renamed(recipe, lambda name: known.get(name) or name).model_copy(update=update)
    root = parse(own.expression).root
    return Opened(own.to_data(), to_text(root), to_tree(root), list(dict.fromkeys(missing)), notes)


def _known(core: Core, recipe: Recipe, name: str) -> str | None:
    """Returns the server's name of a photo; None where it has none like it."""
    digest = recipe.inputs.get(name, "")
    if _DIGEST.fullmatch(digest):
        found = core.store.photo_of(digest[:32])
        if found is not None:
            return PHOTO + found
    return name if core.has_photo(name) else None


def _loading(core: Core, asked: Loading) -> tuple[Loading, list[str]]:
    """Returns what of a recipe's loading holds here too, and what to know of the rest."""
    there: dict[str, Callable[[str], bool]] = {
        "model": lambda name: name in core.lines,
        "renderer": lambda name: name in renderer_names(),
        "library": lambda name: name in core.settings.libraries,
    }
    kept = {n: value for n in _KEPT if (value := getattr(asked, n)) is not None and there[n](value)}
    lost = [f"{n} {getattr(asked, n)}" for n in _OTHER if n not in kept and getattr(asked, n) not in (None, {})]
    lines = [f"it was made with {', '.join(lost)}, not on this server; the image will differ"] if lost else []
    return Loading(**kept), lines
