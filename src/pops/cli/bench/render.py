"""pops bench control and pops bench retrieval: measure spatial control and composed image search on toybox."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pops.cli.bench.shared import Markdown, RenderSteps, tell
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, progress
from pops.files import check_place


@command
def control(
    count: Annotated[
        int, typer.Option("--count", "-n", help="Held-out texturings, each rendered in another pose.", min=1)
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the first case.", min=0)] = 0,
    scale: Annotated[float, typer.Option("--scale", help="Weight of the control.", min=0)] = 1.0,
    render_steps: RenderSteps = None,
    markdown: Markdown = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure spatial control: do results follow a depth map?

    Examples:

    \b
        pops bench control
        pops bench control --count 8 --render-steps 8
        pops bench control --markdown docs/bench-control.md
    """
    import pops
    from pops.measure import control as bench

    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(p, count=count, seed=seed, scale=scale, steps=render_steps, on_progress=on_progress)
    tell(bench.markdown(report), asdict(report), markdown, title="Spatial control, measured", as_json=json_output)


@command
def retrieval(
    count: Annotated[int, typer.Option("--count", "-n", help="Images in the library.", min=2)] = 10_000,
    queries: Annotated[int, typer.Option("--queries", help="Held-out combinations to search for.", min=1)] = 200,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the first query.", min=0)] = 0,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder for the images and the library; a stopped run resumes.")
    ] = None,
    markdown: Markdown = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure composed image search: is the true image found?

    Searches for scene(texturing(A, B), C) in a library of toybox images.

    Examples:

    \b
        pops bench retrieval
        pops bench retrieval --count 300 --queries 20
        pops bench retrieval --cache out/retrieval --markdown docs/bench-retrieval.md
    """
    import pops
    from pops.measure import retrieval as bench

    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    for name in ("texturing", "scene"):
        p.model.spec(name)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(p, count=count, queries=queries, seed=seed, cache=cache, on_progress=on_progress)
    tell(bench.markdown(report), asdict(report), markdown, title="Composed search, measured", as_json=json_output)
