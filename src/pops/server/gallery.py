"""Worked examples: eight recipes of the photos that ship with pops, which become photos of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pops import examples
from pops.expression import parse
from pops.recipe import Recipe
from pops.server.core import Core
from pops.server.references import PHOTO, photos_in, renamed


@dataclass(frozen=True)
class Example:
    """One worked example, ready to be queued. photos: their ids."""

    name: str
    title: str
    recipe: dict[str, Any]
    photos: list[str]


# name, title, expression; the photos are files of the folder of examples.
EXAMPLES: Sequence[tuple[str, str, str]] = (
    ("texture", "A teapot of tiger fur", "texturing(objects/teapot.png, textures/tiger.png)"),
    ("scene", "A rabbit on the beach", "scene(objects/rabbit.png, scenes/beach.png)"),
    ("union", "A dog with a hat", "union(objects/dog.png, objects/hat.png)"),
    ("words", "The same car, in gold", "instruct(objects/car.png, 'golden')"),
    ("equation", "A marble vase in the forest",
     "scene(texturing(objects/vase.png, textures/marble.png), scenes/forest.png)"),
    ("open", "A mug of whatever comes", "texturing(objects/mug.png, _)"),
    ("between", "Half pumpkin, half lamp", "0.5*objects/pumpkin.png + 0.5*objects/lamp.png"),
    ("text", "A robot that was only described, on ice", "texturing(text('a robot'), textures/ice.png)"),
)  # fmt: skip


async def gallery(core: Core) -> list[Example]:
    """Returns the examples; their photos are taken in where they are not there yet."""
    home, found = examples.folder(), []
    ids: dict[str, str] = {}
    for name, title, expression in EXAMPLES:
        recipe = Recipe(expression=expression)
        for file, _ in photos_in(parse(expression).root):
            if file not in ids:
                ids[file] = (await core.take_copy(home / file)).id
        own = renamed(recipe, lambda file: PHOTO + ids[file])
        photos = [name.removeprefix(PHOTO) for name, _ in photos_in(parse(own.expression).root)]
        found.append(Example(name, title, own.to_data(), photos))
    return found
