"""pops show: prints the recipe inside an image that pops made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.shell import Debug, Json, command


@command
def show(
    image: Annotated[Path, typer.Argument(help="An image made by pops, or a recipe (.json).", show_default=False)],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Print the recipe inside an image.

    The expression, seeds, settings, model and versions it was made with.

    Examples:

    \b
        pops show out.png
        pops show out.png --json
        pops run out.png -o again.png
    """
    from pops.recipe import Recipe

    recipe = Recipe.read(image) if image.suffix.lower() == ".json" else Recipe.from_png(image)
    if json_output:
        typer.echo(recipe.to_json())
        return
    rows = _flat(recipe.to_data())
    width = max(len(key) for key, _ in rows) + 2
    for key, value in rows:
        typer.echo(f"{key:<{width}}{value}")


def _flat(data: dict[str, Any], place: str = "") -> list[tuple[str, str]]:
    """Returns (path, value) of every setting: rendering.steps, loading.model, ..."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{place}{key}.")
        else:
            items = value if isinstance(value, list) else [value]
            rows.append((f"{place}{key}", ", ".join(map(_shown, items))))
    return rows


def _shown(item: object) -> str:
    """Returns one value as text; of a sweep's axis its name and values."""
    if isinstance(item, dict):
        return f"{item['name']}: {' '.join(map(str, item['values']))}"
    return str(item)
