"""pops mix: mixes the shape of a layout with the look of a content (MagicMix), or a grid of mixes over settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.fleet import RayOption, Workers
from pops.cli.options import MIX_OPTIONS, OPTIONS, with_options
from pops.cli.outputs import Force, Grid, Outputs, Resume, ShardOption, shard_of
from pops.cli.run import NoRecipe
from pops.cli.shell import Debug, Json, Quiet, command, uncollected
from pops.errors import ConfigError, ensure, suggest

if TYPE_CHECKING:
    from pops.recipe import Sweep

SWEPT = ("nu", "k_min", "k_max", "strength", "guidance", "steps")
MAX_CELLS = 400  # along one axis of a grid
OF_MIXES = (
    "seed", "num_images", "fit", "model", "decoder", "adapter", "renderer", "operators", "dtype", "precision",
    "controlnets", "offload", "device", "upscale",
)  # fmt: skip
HELP = """Mix the shape of one thing with the look of another (MagicMix).

In expressions it is written mix(LAYOUT, CONTENT, ...).

Examples:

\b
    pops mix rabbit.png tiger -o out.png
    pops mix rabbit.png "tiger:1.5" -o out.png --nu 0.7 --k-max 0.7
    pops mix "a teapot" "a cactus" -o out.png --preset object
    pops mix rabbit.png "texturing(teapot.png, tiger.png)" -o out.png

\b
    a grid over two settings; a mix of a mix, without decoding between; the same image again
    pops mix rabbit.png tiger -o grid.png --sweep nu=0.1:0.9:5 --sweep k_max=0.4:0.8:3
    pops mix rabbit.png tiger -o out.png --save-latent mixed.safetensors
    pops mix mixed.safetensors "a cactus" -o second.png
    pops run out.png -o again.png
"""
LayoutOperand = Annotated[
    str,
    typer.Argument(
        help="The shape: a photo, a text, an expression, an embedding file or a latent file.",
        show_default=False,
        metavar="LAYOUT",
    ),
]
ContentOperand = Annotated[
    str,
    typer.Argument(
        help='The look: a text ("tiger", "tiger:1.5 fur:-1"), a photo, an embedding file or an expression.',
        show_default=False,
        metavar="CONTENT",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Image to write; several become NAME-0.png, NAME-1.png, ...", show_default=False),
]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings to start from: style, object, breed or remove.")]
SweepOption = Annotated[
    list[str] | None,
    typer.Option("--sweep", help="nu=0.1:0.9:5: a labelled grid over a setting; give it twice for two axes."),
]
SaveLatent = Annotated[
    Path | None, typer.Option("--save-latent", help="Write the latent (.safetensors), a layout for other mixes.")
]


@command
@uncollected()
@with_options("settings", MIX_OPTIONS)
@with_options("options", OPTIONS, OF_MIXES)
def mix(
    layout: LayoutOperand,
    content: ContentOperand,
    out: Out,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    preset: Preset = None,
    sweep: SweepOption = None,
    save_latent: SaveLatent = None,
    grid: Grid = None,
    no_recipe: NoRecipe = False,
    force: Force = False,
    resume: Resume = False,
    shard: ShardOption = None,
    ray: RayOption = None,
    workers: Workers = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Mixes the shape of one thing with the look of another; the help text is HELP."""
    from pops.cli.make import make
    from pops.magicmix.presets import preset as preset_of
    from pops.magicmix.spec import mix_settings
    from pops.recipe import Recipe
    from pops.studio import Pops

    chosen = {**(preset_of(preset) if preset else {}), **settings}
    if preset == "remove":
        _check_removal(content, float(chosen.get("strength", 1.0)))
    axes = [sweep_of(text) for text in sweep or []]
    for axis in axes:
        for value in axis.values:  # finds mistakes before a model is loaded
            mix_settings({**chosen, axis.name: value})
    ensure(len(axes) <= 2, f"--sweep can be given at most twice, got {len(axes)}")
    pops = Pops.of(Recipe.of("_", **options))
    recipe, in_python = pops.mix_recipe(layout, content, chosen)
    make(
        pops,
        recipe.changed(**options, sweep=axes),
        Outputs(
            out,
            grid=grid,
            latent=save_latent,
            recipe=not no_recipe,
            force=force,
            resume=resume,
            shard=shard_of(shard),
            ray=ray,
            workers=workers,
        ),
        given=in_python,
        json_output=json_output,
        quiet=quiet,
    )


def sweep_of(text: str) -> Sweep:
    """Parses `nu=0.1:0.9:5` into five values from 0.1 to 0.9; raises ConfigError for anything else."""
    from pops.recipe import Sweep

    name, _, numbers = text.partition("=")
    name = name.strip().replace("-", "_")
    ensure(name in SWEPT, f"unknown --sweep {name!r}{suggest(name, SWEPT)}; choose from {', '.join(SWEPT)}")
    try:
        first, last, count = numbers.split(":")
        low, high, n = float(first), float(last), int(count)
    except ValueError:
        raise ConfigError(f"--sweep is NAME=FIRST:LAST:COUNT, such as nu=0.1:0.9:5; got {text!r}") from None
    ensure(1 <= n <= MAX_CELLS, f"--sweep {name}: the count must be from 1 to {MAX_CELLS}, got {n}")
    each = [low + (high - low) * i / max(1, n - 1) for i in range(n)]
    values = tuple(round(v) if name == "steps" else round(v, 6) for v in each)
    return Sweep(name=name, values=values)  # type: ignore[arg-type]  # checked above


def _check_removal(content: str, strength: float) -> None:
    """Raises ConfigError unless the content has words to remove."""
    from pops.magicmix.prompt import Prompt

    least = min((strength if own is None else own for own in Prompt.of(content).strengths), default=strength)
    ensure(
        least <= 0,
        f"{content!r} has no words to remove; describe the image, with a strength of 0 or less on what to remove: "
        '"a zebra:0 rabbit"',
        ConfigError,
    )
