"""What recipes over HTTP call their photos (photo:ID, examples/...), and the files that these stand for.

A name is looked up in what the server itself has; no text of a request ever becomes a path. Trees are rewritten node by
node, and what comes out carries the names again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pops.expression.grammar import parse, to_text
from pops.expression.nodes import Call, Let, Name, Node, Photo, Sum, walk
from pops.recipe import Recipe

PHOTO = "photo:"
ID = r"[0-9a-f]{32}"  # of a photo: the beginning of its bytes' sha256
_REFERENCE = re.compile(rf"{PHOTO}({ID})")
MAP = "map:"  # before a control image that is ready


def photo_id(name: str) -> str | None:
    """Returns the id in photo:ID; None for any other name."""
    match = _REFERENCE.fullmatch(name)
    return match[1] if match else None


def name_of(node: Node) -> str | None:
    """Returns how an operand names a photo; None for a node that is none. A bare photo:ID parses as a word."""
    if isinstance(node, Photo):
        return node.path
    return node.name if isinstance(node, Name) and node.name.startswith(PHOTO) else None


def photos_in(root: Node) -> Iterator[tuple[str, Node]]:
    """Yields every operand that names a photo, with its name."""
    for node in walk(root):
        name = name_of(node)
        if name is not None:
            yield name, node


def replaced(root: Node, change: Callable[[str], str], *, bare: bool = False) -> Node:
    """Returns the tree with other paths of its photos. bare: those of the server are written as photo:ID alone."""
    name = name_of(root)
    if name is not None:
        new = change(name)
        return Name(new, span=root.span) if bare and photo_id(new) else Photo(new, span=root.span)

    def inner(part: Node) -> Node:
        return replaced(part, change, bare=bare)

    match root:
        case Call(operands=operands):
            return replace(root, operands=tuple(inner(part) for part in operands))
        case Sum(terms=terms):
            return replace(root, terms=tuple((weight, inner(part)) for weight, part in terms))
        case Let(bindings=bindings, body=body):
            own = tuple((name, inner(part)) for name, part in bindings)
            return replace(root, bindings=own, body=inner(body))
    return root


def renamed(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """Returns the recipe with other names of its photos: in the expression, the controls and the list of inputs."""
    tree = parse(recipe.expression)
    rendering = recipe.rendering
    control = {kind: _renamed_map(source, change) for kind, source in rendering.control.items()}
    return recipe.model_copy(
        update={
            "expression": to_text(replaced(tree, change, bare=True)) if any(photos_in(tree)) else recipe.expression,
            "rendering": rendering.model_copy(update={"control": control}),
            "inputs": {change(path): digest for path, digest in recipe.inputs.items()},
        }
    )


def _renamed_map(source: str, change: Callable[[str], str]) -> str:
    return MAP + change(source[len(MAP) :]) if source.startswith(MAP) else change(source)


@dataclass(frozen=True)
class References:
    """The names in one job's recipe: of photos, and of the library that its renderer searches. name -> path."""

    photos: Mapping[str, str]
    libraries: Mapping[str, str]

    def to_paths(self, recipe: Recipe) -> Recipe:
        """Returns the recipe as it is run here."""
        own = renamed(recipe, lambda name: self.photos.get(name, name))
        library = recipe.loading.library
        if library is None:
            return own
        return own.model_copy(update={"loading": own.loading.model_copy(update={"library": self.libraries[library]})})

    def to_names(self, data: dict[str, Any], asked: Recipe) -> dict[str, Any]:
        """Returns the recipe inside an image as it leaves the server: with the names that were asked for.

        A photo that the renderer "retrieval" found keeps the last part of its path alone.
        """
        names = {path: name for name, path in self.photos.items()}
        recipe = Recipe.of_data(data, "the image")
        rendering = asked.rendering if recipe.rendering.control else recipe.rendering
        control = {kind: rendering.control[kind] for kind in recipe.rendering.control}
        loading, found = recipe.loading, recipe.found
        if asked.loading.library is not None:
            loading = loading.model_copy(update={"library": asked.loading.library})
        if found is not None and isinstance(found.get("path"), str):
            found = {**found, "path": re.split(r"[/\\]", str(found["path"]))[-1]}
        update = {
            "expression": asked.expression,
            "rendering": recipe.rendering.model_copy(update={"control": control}),
            "inputs": {names.get(path, path): digest for path, digest in recipe.inputs.items()},
            "loading": loading,
            "found": found,
        }
        return recipe.model_copy(update=update).to_data()

    def captions(self, names: Mapping[str, str]) -> dict[str, str]:
        """Returns what figures write below photos, by path: their files' names without the ending."""
        return {self.photos[photo]: re.sub(r"(?<=.)\.\w{1,11}$", "", name) for photo, name in names.items()}

    def hidden(self, text: str) -> str:
        """Returns a message without the server's own paths."""
        for name, path in {**self.photos, **self.libraries}.items():
            text = text.replace(path, name)
        return text
