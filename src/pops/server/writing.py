"""Writes a recipe of the server as one would write it oneself, with photos by the names of their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pops.recipe import Recipe
from pops.server.core import Core, plain_name
from pops.server.references import MAP, photo_id, photos_in, renamed
from pops.snippets import Kind, snippet


def written(core: Core, data: Mapping[str, Any], kind: Kind, names: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns a snippet, and the files' names in it, by photo:ID. names: those that were asked for.

    Raises ConfigError or ExpressionError for a recipe that cannot be read.
    """
    recipe = Recipe.of_data(data, "the request").trusted()
    root = core.checker.parsed(recipe.expression)
    photos = [name for name, _ in photos_in(root)] + [s.removeprefix(MAP) for s in recipe.rendering.control.values()]
    files: dict[str, str] = {}
    for photo in dict.fromkeys(photos):
        id_ = photo_id(photo)
        if id_ is not None:
            stored = core.store.photo(id_)
            name = plain_name(names.get(photo)) or (stored.name if stored else "") or f"{id_[:8]}.png"
            files[photo] = _free(name, set(files.values()))
    own = renamed(recipe, lambda name: files.get(name, name))
    return snippet(own, kind, model=core.settings.default), files


def _free(name: str, taken: set[str]) -> str:
    """Returns the name, or cup-2.png where another photo is called cup.png."""
    path, number = PurePath(name), 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name
