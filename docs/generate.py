"""Writes the reference pages of the site from the code: commands, the HTTP API, recipes, Python names.

python docs/generate.py FOLDER
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pops

if TYPE_CHECKING:
    from pops.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {  # of pops.__all__, in the order of the page
    "Models and runs": ["load", "Pops", "Recipe", "Result"],
    "Values": ["Embedding", "Expression", "parse", "Operator", "OperatorSpec"],
    "Renderers and mixing": ["Renderer", "MagicMix"],
}
METHODS = ("get", "post", "put", "patch", "delete")


def write_pages(folder: Path) -> None:
    """Writes all pages; one that has not changed is left, so that it is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "python": python_page(), "commands": commands_page(), "http": http_page(), "recipe": recipe_page(),
        "gallery": gallery_page(),
    }  # fmt: skip
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# --- Python ----------------------------------------------------------------------------------------


def python_page() -> str:
    """Returns a page with every public name."""
    rest = [name for name in pops.__all__ if not any(name in group for group in GROUPS.values())]
    parts = ["# Python", "", "Every name below is imported from `pops`, on its first use."]
    for title, names in {**GROUPS, "Errors": rest}.items():
        parts += ["", f"## {title}"]
        for name in names:
            kind = "autofunction" if name in ("load", "parse") else "autoclass"
            parts += ["", "```{eval-rst}", f".. {kind}:: pops.{name}", "```"]
    return "\n".join(parts) + "\n"


# --- the command line ------------------------------------------------------------------------------


def commands_page() -> str:
    """Returns a page with every command, its examples and its options."""
    from typer.main import get_command

    from pops.cli.main import app

    parts = ["# Commands", "", "Made from `pops --help`; [cli.md](../../cli.md) explains what they share."]
    for path, command in _commands(get_command(app), ["pops"]):
        parts += ["", f"## {' '.join(path)}", "", *_help(command.help or "")]
        options = [p for p in command.params if p.name != "help"]
        if options:
            parts += ["", "| option | meaning | default |", "|---|---|---|"]
            parts += [_row(p) for p in options]
    return "\n".join(parts) + "\n"


def _commands(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name in command.list_commands(None):
        found = command.get_command(None, name)
        if hasattr(found, "list_commands"):
            yield from _commands(found, [*path, name])
        else:
            yield [*path, name], found


def _help(text: str) -> Iterator[str]:
    """A command's help as Markdown. What is indented are examples; a line of them that is no command is a note."""
    for part in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        if part.startswith(("    ", "\n    ")):
            lines = [line.strip() for line in part.splitlines() if line.strip()]
            yield from ["```sh", *(line if line.startswith("pops") else f"# {line}" for line in lines), "```", ""]
        else:
            yield from [part.strip("\n"), ""]


def _row(option: Any) -> str:
    names = [*option.opts, *option.secondary_opts] if option.param_type_name == "option" else [option.name.upper()]
    default = option.default
    if default in (None, (), False) or callable(default) or "object at" in repr(default):
        default = "required" if option.required else ""
    meaning = " ".join((option.help or "").split())
    return f"| {', '.join(f'`{name}`' for name in names)} | {_cell(meaning)} | {_cell(str(default))} |"


def _cell(text: str) -> str:
    return re.sub(r"([|<\[\]*_])", r"\\\1", text)


# --- the HTTP API ----------------------------------------------------------------------------------


def http_page() -> str:
    """Returns a page with every route, from the server's own schema."""
    from pops.server.app import create_app
    from pops.server.settings import Settings

    schema = _schema_of(create_app, Settings)
    parts = ["# The HTTP API", "", "Made from `/openapi.json`; [server.md](../../server.md) explains it."]
    for path, operations in schema["paths"].items():
        for method in (m for m in METHODS if m in operations):
            route = operations[method]
            parts += ["", f"## {method.upper()} {path}", "", (route.get("description") or "").strip()]
            for one in route.get("parameters", []):
                about = f"{one['in']}, {_kind(one['schema'])}"
                parts.append(f"- `{one['name']}` ({about}) {one.get('description', '')}".rstrip())
            parts += ["", "Answers: " + ", ".join(f"`{code}`" for code in route["responses"]) + "."]
    parts += ["", "## Schemas", "", "```json"]
    parts += [json.dumps(schema["components"]["schemas"], indent=1, sort_keys=True), "```"]
    return "\n".join(parts) + "\n"


def _schema_of(create_app: Any, settings: Any) -> dict[str, Any]:
    import tempfile

    from pops.recipe import Loading

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(settings(data=Path(folder), models=(Loading(model="tiny"),)))
        found: dict[str, Any] = app.openapi()
        app.state.core.store.close()
    return found


# --- the gallery -----------------------------------------------------------------------------------


def gallery_page() -> str:
    """Returns a page with every picture of docs/pictures that carries a recipe, and the command that makes it again."""
    from pops.errors import PhotoError
    from pops.recipe import Recipe

    parts = ["# Gallery", "", "Every picture carries its recipe; the command below it makes it again, byte for byte."]
    parts += [
        "Save one with your browser, and `pops show` tells how it was made. The photos are those of `pops examples`."
    ]
    parts += ["", "::::{grid} 1 1 2 2", ":gutter: 3"]
    for path in sorted((ROOT / "docs" / "pictures").glob("*.jpg")):
        try:
            recipe = Recipe.from_png(path)
        except PhotoError:
            continue
        parts += [
            "",
            ":::{grid-item-card}",
            f":img-top: ../../pictures/{path.name}",
            f":img-alt: {recipe.expression}",
            "",
        ]
        parts += ["```sh", command_of(recipe), "```", ":::"]
    return "\n".join([*parts, "::::"]) + "\n"


def command_of(recipe: Recipe) -> str:
    """Returns the command that makes a recipe's picture."""
    words = ["pops run", shlex.quote(recipe.expression)]
    if recipe.seeds != (0,):
        words.append("--seed " + ",".join(map(str, recipe.seeds)))
    words += ["-o out.png"] + ([f"--{recipe.shows} figure.jpg"] if recipe.shows != "image" else [])
    return " ".join(words)


# --- recipes ---------------------------------------------------------------------------------------


def recipe_page() -> str:
    """Returns a page with the JSON schema of recipes, a table for each part."""
    from pops.recipe import Recipe

    schema = Recipe.model_json_schema()
    parts = ["# The recipe's schema", "", "Made from `pops.Recipe`; [recipes.md](../../recipes.md) explains it."]
    for name, part in {"Recipe": schema, **schema.get("$defs", {})}.items():
        parts += ["", f"## {name}", "", " ".join((part.get("description") or "").split())]
        if "properties" not in part:
            parts += ["Any value of JSON."]
            continue
        parts += ["", "| field | type | default |", "|---|---|---|"]
        for field, about in part["properties"].items():
            default = f"`{json.dumps(about['default'])}`" if "default" in about else ""
            parts.append(f"| `{field}` | {_cell(_kind(about))} | {default} |")
    return "\n".join(parts) + "\n"


def _kind(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return str(about["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in about or "oneOf" in about:
        return " or ".join(dict.fromkeys(_kind(each) for each in about.get("anyOf", about.get("oneOf", []))))
    if "enum" in about:
        return " or ".join(f"`{json.dumps(each)}`" for each in about["enum"])
    if about.get("type") == "array":
        inner = about.get("items") or (about.get("prefixItems") or [{}])[0]
        return f"list of {_kind(inner)}"
    if about.get("type") == "object" and isinstance(about.get("additionalProperties"), dict):
        return f"names to {_kind(about['additionalProperties'])}"
    bounds = [f"{sign} {about[key]}" for key, sign in (("minimum", ">="), ("maximum", "<=")) if key in about]
    return " ".join([str(about.get("type", "any")), *bounds])


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
