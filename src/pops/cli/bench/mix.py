"""pops bench mix: how mixes keep their layout and show their content, on toybox."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pops.cli.bench.shared import tell
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, progress
from pops.errors import ConfigError, ensure


@command
def mix(
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out pairs of a layout and a content.", min=2)] = 200,
    seed: Annotated[int, typer.Option("--seed", "-s", help="The first pair.", min=0)] = 0,
    nu: Annotated[str | None, typer.Option("--nu", help="With commas.", show_default="0 to 1, eight values")] = None,
    strength: Annotated[
        str | None, typer.Option("--strength", help="With commas.", show_default="-1 to 2, six values")
    ] = None,
    at_nu: Annotated[float | None, typer.Option("--at-nu", help="nu where strength varies. [0.9]")] = None,
    k_min: Annotated[float | None, typer.Option("--k-min", help="Mixing stops here. [0.3]")] = None,
    k_max: Annotated[float | None, typer.Option("--k-max", help="Mixing starts here. [0.6]")] = None,
    reach: Annotated[str | None, typer.Option("--reach", help="Of strengths: words or text. [words]")] = None,
    steps: Annotated[int, typer.Option("--steps", help="Of each mix.", min=1)] = 20,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Of each mix. [the model's own]")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Pictures mixed together.", min=1)] = 16,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table here, too.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curves here.")] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Mixes against the truth: are layout and content kept?

    Silhouette overlap with the layout, and the oracle's reading of the content, over nu and over strength.

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
        ensure(fits, f"{plot}: pictures are written as {', '.join(PICTURE_SUFFIXES)}; name one of them")
    for path in filter(None, (markdown, plot)):
        check_place(path)
    nus = bench.NUS if nu is None else _numbers(nu, "--nu", "0,0.5,1")
    strengths = bench.STRENGTHS if strength is None else _numbers(strength, "--strength", "0,1,2")
    p = pops.load(model, device=device, max_batch=batch)
    asked = {"nu": at_nu, "k_min": k_min, "k_max": k_max, "reach": reach, "steps": steps, "guidance": guidance}
    how = {name: value for name, value in asked.items() if value is not None}
    with progress(quiet=quiet or json_output) as on_progress:
        found = bench.measure(p, count=count, seed=seed, nus=nus, strengths=strengths, how=how, on_progress=on_progress)
    report, table = asdict(found), mix_figures.markdown(found)
    if plot is not None:
        save_picture(mix_figures.plot(found), plot)
    tell(table, report, markdown, as_json=json_output)


def _numbers(text: str, option: str, example: str) -> list[float]:
    """Numbers with commas, rising."""
    told = f"{option} takes rising numbers with commas, such as {example}; got {text!r}"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(told) from None
    ensure(all(a < b for a, b in itertools.pairwise(numbers)), told)
    return numbers
