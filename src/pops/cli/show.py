"""pops show: the recipe of a picture that pops made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.shell import Debug, Json, command, print_json


@command
def show(
    picture: Annotated[Path, typer.Argument(help="A picture that `pops run` wrote.", show_default=False)],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Print the recipe of a picture.

    Its expression, seeds, settings, model and versions.

    Examples:

    \b
        pops show out.png
        pops show out.png --json
        pops run out.png -o again.png
    """
    from pops.images import read_recipe

    recipe = read_recipe(picture)
    if json_output:
        print_json(recipe)
        return
    for key, value in recipe.items():
        if value not in (None, "", {}):
            typer.echo(f"{key:<15}{_line(value)}")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_line(v)}" for k, v in value.items() if v not in (None, ""))
    if isinstance(value, list):
        return ", ".join(_line(v) for v in value)
    return str(value)
