"""A recipe as what one would write oneself: lines of Python, or a command. Either makes the same images."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Literal

from pops.recipe import PLACES, SHIPPED, Recipe

# Settings whose flag is not their name, and those that no flag has: a recipe with one of these is written to a file.
_FLAGS = {"operators": "--operator", "controlnets": "--controlnet", "scale": "--embedding-scale", "enlarge": "--scale"}
_FILE = ("image", "sweep", "render_seed", "max_batch", "threads")
_FIGURES = {"tree": "--tree", "equation": "--equation", "grid": "--grid"}
Kind = Literal["python", "command"]


def snippet(recipe: Recipe, kind: Kind, *, model: str = SHIPPED, out: str = "out.png") -> str:
    """Returns the snippet. model: the one that runs a recipe which names none; out: the image to write."""
    asked = recipe.model_copy(update={"inputs": {}, "versions": {}, "found": None})
    if asked.loading.model is None and model != SHIPPED:
        asked = asked.model_copy(update={"loading": asked.loading.model_copy(update={"model": model})})
    return _python(asked, out) if kind == "python" else _command(asked, out)


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Returns a recipe's settings that are not their defaults, by the names that `Recipe.of` takes."""
    parts: dict[str, Any] = {"": recipe, "making": recipe.making, "rendering": recipe.rendering}
    given = {name: part.given() for name, part in {**parts, "loading": recipe.loading}.items()}
    return {name: given[part][field] for name, (part, field) in PLACES.items() if field in given[part]}


def _python(recipe: Recipe, out: str) -> str:
    options = options_of(recipe)
    if "sweep" in options:
        made = f"pops.Recipe.from_json({recipe.to_json(indent=None)!r}).trusted()"
    else:
        lines = [repr(recipe.expression), *(f"{name}={_value(name, value)}" for name, value in options.items())]
        made = "pops.Recipe.of(\n" + "".join(f"    {line},\n" for line in lines) + ")"
    load = f"pops.load({recipe.loading.model or SHIPPED!r})"
    return f"import pops\n\nrecipe = {made}\n{load}.run(recipe).save({out!r})\n"


def _value(name: str, value: Any) -> str:
    if name in ("seed", "render_seed"):
        return repr(value[0] if len(value) == 1 else list(value))
    return repr(value)


def _command(recipe: Recipe, out: str) -> str:
    options = options_of(recipe)
    if any(name in options for name in _FILE) or isinstance(options.get("scale"), dict):
        trust = " --trust" if recipe.loads() else ""
        return (
            f"cat > recipe.json <<'END'\n{recipe.to_json()}\nEND\npops run recipe.json -o {shlex.quote(out)}{trust}\n"
        )
    shows = options.pop("shows", None)
    words = ["pops", "run", recipe.expression]
    for name, value in options.items():
        words += _flag(name, value)
    words += [_FIGURES[shows] if shows else "-o", out]
    return " ".join(shlex.quote(word) for word in words) + "\n"


def _flag(name: str, value: Any) -> list[str]:
    """Returns an option's words on a command line."""
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    if isinstance(value, Mapping):
        return [word for key, item in value.items() for word in (flag, f"{key}={_text(item)}")]
    if isinstance(value, bool):
        return [flag] if value else []
    if name in ("seed", "render_guidance_interval"):
        return [flag, ",".join(map(str, value))]
    if name == "size":
        return [flag, "x".join(map(str, value))]
    return [
        f"{flag}={value}" if str(value).startswith("-") else flag,
        *([] if str(value).startswith("-") else [_text(value)]),
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
