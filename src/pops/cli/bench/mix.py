"""pops bench mix: measures how well mixes keep their layout and show their content, on toybox."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.bench.shared import Markdown, tell
from pops.cli.options import MIX_OPTIONS, with_options
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, progress
from pops.errors import ConfigError, ensure


@command
@with_options("settings", MIX_OPTIONS, ("k_min", "k_max", "reach", "guidance"))
def mix(
    settings: Mapping[str, Any],
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out pairs of a layout and a content.", min=2)] = 200,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the first pair.", min=0)] = 0,
    nu: Annotated[
        str | None, typer.Option("--nu", help="Values of nu, with commas.", show_default="0 to 1, eight values")
    ] = None,
    strength: Annotated[
        str | None, typer.Option("--strength", help="Strengths, with commas.", show_default="-1 to 2, six values")
    ] = None,
    at_nu: Annotated[float | None, typer.Option("--at-nu", help="Value of nu while strength varies. [0.9]")] = None,
    steps: Annotated[int, typer.Option("--steps", help="Denoising steps of each mix.", min=1)] = 20,
    batch: Annotated[int, typer.Option("--batch", help="Images per batch.", min=1)] = 16,
    markdown: Markdown = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curves into this image.")] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how well mixes keep their layout and show their content.

    Reports the silhouette's overlap with the layout, and the oracle's score of the content, over nu and strength.

    Examples:

    \b
        pops bench mix --markdown docs/bench-mix.md --plot docs/pictures/bench-mix.png
        pops bench mix --count 8 --nu 0.5,0.9 --strength 1,2
    """
    import pops
    from pops.files import check_place
    from pops.images import PICTURE_SUFFIXES, save_picture
    from pops.measure import mix as bench
    from pops.measure import mix_figures

    if plot is not None:
        fits = plot.suffix.lower() in PICTURE_SUFFIXES
        ensure(fits, f"{plot}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings")
    for path in filter(None, (markdown, plot)):
        check_place(path)
    nus = bench.NUS if nu is None else _numbers(nu, "--nu", "0,0.5,1")
    strengths = bench.STRENGTHS if strength is None else _numbers(strength, "--strength", "0,1,2")
    p = pops.load(model, device=device, max_batch=batch)
    how = {**settings, "steps": steps, **({} if at_nu is None else {"nu": at_nu})}
    with progress(quiet=quiet or json_output) as on_progress:
        found = bench.measure(p, count=count, seed=seed, nus=nus, strengths=strengths, how=how, on_progress=on_progress)
    report, table = asdict(found), mix_figures.markdown(found)
    if plot is not None:
        save_picture(mix_figures.plot(found), plot)
    tell(table, report, markdown, title="Mixes, measured", as_json=json_output)


def _numbers(text: str, option: str, example: str) -> list[float]:
    """Parses rising numbers with commas; raises ConfigError for anything else."""
    message = f"{option} takes rising numbers with commas, such as {example}; got {text!r}"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(message) from None
    ensure(all(a < b for a, b in itertools.pairwise(numbers)), message)
    return numbers
