"""pops bench: measurements, as a table for people or one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.errors import ensure

app = typer.Typer(help="Measure a model against the truth.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    pass


@app.command("toybox")
@command
def toybox(
    operators: Annotated[
        str, typer.Option("--operators", help="Which, with commas.", show_default="all four")
    ] = "texturing,union,scene,instruct",
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out triplets of each operator.", min=2)] = 500,
    seed: Annotated[int, typer.Option("--seed", "-s", help="The first triplet.", min=0)] = 0,
    no_render: Annotated[bool, typer.Option("--no-render", help="Embeddings only: no pictures, no oracle.")] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Of the operators.", min=1, show_default="each's own")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Of the operators.", min=0, show_default="each's own")
    ] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="Of the operators.")] = "ancestral",
    render_steps: Annotated[
        int | None, typer.Option("--render-steps", help="Of the renderer.", min=1, show_default="the model's")
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table here, too.")] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Operators on held-out combinations of toybox, where the true result is known.

    Examples:

    \b
        pops bench toybox
        pops bench toybox --operators texturing,scene --count 64 --no-render
        pops bench toybox --json > figures.json
    """
    import pops
    from pops.bench import toybox as bench
    from pops.files import check_place, write_whole

    wanted = [name.strip() for name in operators.split(",") if name.strip()]
    ensure(bool(wanted), "--operators names none; write for instance texturing,union")
    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    for name in wanted:
        p.spec(name)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(
            p, operators=wanted, count=count, seed=seed, render=not no_render, steps=steps, guidance=guidance,
            sampler=sampler, render_steps=render_steps, on_progress=on_progress,
        )  # fmt: skip
    table = bench.markdown(report)
    if markdown is not None:
        with write_whole(markdown) as temporary:
            temporary.write_text(table, encoding="utf-8")
    if json_output:
        about = {k: v for k, v in asdict(report).items() if k != "operators"}
        print_json({**report.operators, "about": about})
    else:
        typer.echo(table)
