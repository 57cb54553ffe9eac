"""pops run: computes an expression, a tree file, a recipe, or the recipe inside an image, and writes images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.fleet import RayOption, Workers
from pops.cli.options import OPTIONS, with_options
from pops.cli.outputs import Force, Grid, Outputs, Resume, ShardOption, shard_of
from pops.cli.shell import Debug, Json, Quiet, Trust, command, print_json, trusted, uncollected
from pops.files import expanded, is_file

HELP = """Compute an expression and render it.

Examples:

\b
    pops run "texturing(teapot.png, tiger.png)" -o out.png
    pops run "scene(texturing(teapot.png, tiger.png), beach.png)" -o out.png
    pops run 'instruct(rabbit.png, "golden")' -o out.png --equation strip.png
    pops run 'text("a marble rabbit")' -o rabbit.png --num-images 4

\b
    a missing operand, four seeds; a weighted sum; a tree with every node rendered
    pops run "texturing(teapot.png, _)" --seed 0:4 -o idea.png
    pops run "0.5*dog.png + 0.5*hat.png" -o out.png --save-embedding e.safetensors
    pops run "union(dog.png, hat.png)" -o out.png --tree tree.png

\b
    a labelled sheet of nine ideas; many seeds on two machines; going on after a stop
    pops run "texturing(teapot.png, _)" --seed 0:9 --grid ideas.png
    pops run "texturing(teapot.png, _)" --seed 0:10000 -o idea.png --shard 1/2
    pops run "texturing(teapot.png, _)" --seed 0:10000 -o idea.png --shard 1/2 --resume
    pops run "texturing(teapot.png, _)" --seed 0:10000 -o idea.png --ray local

\b
    in the pose of another photo, with a depth ControlNet
    pops run "texturing(teapot.png, tiger.png)" --control depth=pose.png --control-scale 0.5 -o out.png

\b
    the same image again, byte for byte, from the recipe inside it, or from the recipe alone
    pops run out.png -o again.png
    pops show out.png --json > recipe.json; pops run recipe.json -o again.png
"""
Source = Annotated[
    str,
    typer.Argument(
        help="An expression, a tree file (.yaml, .json), a recipe (.json), or an image made by pops, to make it again.",
        show_default=False,
        metavar="EXPR",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Image to write; several become NAME-0.png, NAME-1.png, ...", show_default=False),
]
SaveControl = Annotated[Path | None, typer.Option("--save-control", help="Write the control image, too.")]
SaveEmbedding = Annotated[
    Path | None, typer.Option("--save-embedding", help="Write the embedding: .safetensors, .npy or .ipadpt.")
]
Tree = Annotated[Path | None, typer.Option("--tree", help="Write a figure of the tree, with every node rendered.")]
Equation = Annotated[Path | None, typer.Option("--equation", help="Write a figure of the equation.")]
NoRecipe = Annotated[bool, typer.Option("--no-recipe", help="Write images without the recipe inside.")]
ServerOption = Annotated[
    str | None,
    typer.Option("--server", envvar="POPS_SERVER", help="Address of a running `pops serve`, which makes the images."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")]


@command
@uncollected()
@with_options("options", OPTIONS)
def run(
    expression: Source,
    options: Mapping[str, Any],
    out: Out = None,
    save_control: SaveControl = None,
    save_embedding: SaveEmbedding = None,
    tree: Tree = None,
    equation: Equation = None,
    grid: Grid = None,
    no_recipe: NoRecipe = False,
    force: Force = False,
    resume: Resume = False,
    shard: ShardOption = None,
    ray: RayOption = None,
    workers: Workers = None,
    trust: Trust = False,
    server: ServerOption = None,
    json_output: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Computes an expression and renders it; the help text is HELP."""
    from pops.cli.make import make
    from pops.images import PHOTO_SUFFIXES
    from pops.recipe import Recipe

    recipe = trusted(Recipe.read(expression).changed(**options), trust, ask=not json_output)
    path = expanded(expression)
    if path.suffix.lower() in PHOTO_SUFFIXES and is_file(path) and not recipe.versions:
        typer.echo(f"pops: {expression} carries no recipe; it is used as a photo", err=True)
    outputs = Outputs(
        out, tree, equation, grid, save_embedding, None, save_control, not no_recipe, force, resume, shard_of(shard),
        ray, workers,
    )  # fmt: skip
    if server and not dry_run:
        from pops.cli.remote import make_remote

        make_remote(server, recipe, outputs, json_output=json_output, quiet=quiet)
        return
    from pops.studio import Pops

    pops = Pops.of(recipe)
    if dry_run:
        plan = str(pops.plan(recipe.expression))
        shown = {"ok": True, "expression": recipe.expression, "plan": plan, "recipe": recipe.to_data()}
        print_json(shown) if json_output else typer.echo(plan)
        return
    make(pops, recipe, outputs, json_output=json_output, quiet=quiet)
