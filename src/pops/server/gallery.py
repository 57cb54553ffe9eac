"""Worked examples: eight recipes of the photos that ship with pops, which become photos of the server.

pictures/ holds what `tiny` makes of each, as `python studio/gallery.py` wrote it: with its recipe inside. It is shown
until the server has made its own, and only where the server has the tiny that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pops import examples
from pops.expression import parse
from pops.recipe import SHIPPED, Recipe
from pops.server.core import Core
from pops.server.references import PHOTO, photos_in, renamed

SMALL = 128  # pixels of a photo on an example's card
PICTURES = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class Example:
    """One worked example, ready to be queued. photos: their ids; picture: the version of the one that ships."""

    name: str
    title: str
    recipe: dict[str, Any]
    photos: list[str]
    picture: str | None


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


def picture_path(name: str) -> Path | None:
    """Returns the file of an example's picture that ships; None where there is none."""
    path = PICTURES / f"{name}.webp"
    return path if name in {one for one, _, _ in EXAMPLES} and path.is_file() else None


@cache
def shipped(name: str, expression: str, version: str) -> str | None:
    """Returns the digest of the picture that ships; None unless tiny of this version made it of this expression."""
    path = picture_path(name)
    if path is None:
        return None
    made = Recipe.from_png(path)
    same = (made.expression, made.versions.get("model"), made.loading.model) == (expression, version, SHIPPED)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if same else None


async def gallery(core: Core) -> list[Example]:
    """Returns the examples; their photos are taken in where they are not there yet."""
    home, found = examples.folder(), []
    version = core.lines[SHIPPED].version if core.settings.default == SHIPPED else ""
    ids: dict[str, str] = {}
    for name, title, expression in EXAMPLES:
        recipe = Recipe(expression=expression)
        for file, _ in photos_in(parse(expression).root):
            if file not in ids:
                ids[file] = (await core.take_copy(home / file)).id
        own = renamed(recipe, lambda file: PHOTO + ids[file])
        photos = [name.removeprefix(PHOTO) for name, _ in photos_in(parse(own.expression).root)]
        found.append(Example(name, title, own.to_data(), photos, shipped(name, expression, version)))
    return found


async def prepare(core: Core) -> None:
    """Takes in what the first page shows: the photos of the examples, and their small copies."""
    for example in await gallery(core):
        for photo in example.photos:
            await core.small_photo(photo, SMALL)
