"""pops examples: copies the example photos that ship with pops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Json, Quiet, command, print_json


@command
def examples(
    folder: Annotated[Path, typer.Argument(help="Folder to copy them to.")] = Path("examples"),
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Copy photos to begin with: objects, textures, scenes and poses that `tiny` knows.

    A file that exists is left as it is.

    Examples:

    \b
        pops examples
        pops run "texturing(examples/objects/teapot.png, examples/textures/tiger.png)" -o out.png
    """
    from pops.examples import copy_to

    written = list(copy_to(folder))
    if json_output:
        print_json({"ok": True, "outputs": [str(path) for path in written]})
    elif not quiet:
        typer.echo(f"{len(written)} photos were copied to {folder}")
