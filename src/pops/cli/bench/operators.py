"""pops bench toybox and pops bench samplers: measure operators on toybox, where the true result is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pops.cli.bench.shared import (
    Count,
    First,
    Guidance,
    Markdown,
    NoRender,
    Operators,
    RenderSteps,
    Strength,
    listed,
    tell,
)
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, progress
from pops.errors import ensure
from pops.files import check_place


@command
def toybox(
    operators: Annotated[
        str | None,
        typer.Option(
            "--operators",
            help="Operators to measure, with commas; union_3 and union_4 are unions of unions.",
            show_default="all of the model",
        ),
    ] = None,
    count: Count = 500,
    seed: First = 0,
    no_render: NoRender = False,
    pictures: Annotated[
        int | None, typer.Option("--pictures", help="Render only the first N results.", min=2, show_default="all")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Sampling steps of the operators.", min=1, show_default="each one's own"),
    ] = None,
    guidance: Guidance = None,
    strength: Strength = None,
    sampler: Annotated[str, typer.Option("--sampler", help="Sampler of the operators.")] = "ancestral",
    render_steps: RenderSteps = None,
    markdown: Markdown = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure operators on held-out combinations of toybox.

    Examples:

    \b
        pops bench toybox
        pops bench toybox --operators texturing,scene --count 64 --no-render
        pops bench toybox --count 500 --pictures 100 --render-steps 12
        pops bench toybox --json > figures.json
    """
    import pops
    from pops.measure import operators as bench

    wanted = None if operators is None else listed(operators, "--operators", "texturing,union")
    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    if wanted is None:
        wanted = [name for name in (*bench.OPERATORS, *bench.FURTHER) if bench.operator_of(name) in p.operators]
    for name in wanted:
        bench.check_operator(name)
        p.model.spec(bench.operator_of(name))
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(
            p, operators=wanted, count=count, seed=seed, render=not no_render, pictures=pictures, steps=steps,
            guidance=guidance, strength=strength, sampler=sampler, render_steps=render_steps, on_progress=on_progress,
        )  # fmt: skip
    about = {k: v for k, v in asdict(report).items() if k != "operators"}
    tell(
        bench.markdown(report),
        {**report.operators, "about": about},
        markdown,
        title="Operators on toybox",
        as_json=json_output,
    )


@command
def samplers(
    operators: Operators = "texturing,union,scene,instruct",
    names: Annotated[
        str | None, typer.Option("--samplers", help="Samplers to measure, with commas.", show_default="all")
    ] = None,
    steps_list: Annotated[str, typer.Option("--steps-list", help="Numbers of steps, with commas.")] = "1,2,4,6,8,25",
    count: Count = 500,
    seed: First = 0,
    draws: Annotated[int, typer.Option("--draws", help="Samples per triplet.", min=1)] = 2,
    guidance: Guidance = None,
    no_render: NoRender = False,
    render_steps: RenderSteps = None,
    markdown: Markdown = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure samplers at few steps against 25 ancestral steps.

    Examples:

    \b
        pops bench samplers --no-render
        pops bench samplers --no-render --samplers dpm++2m --steps-list 6,8 --guidance 4
        pops bench samplers --samplers dpm++2m --steps-list 8 --count 100 --render-steps 12
    """
    import pops
    from pops.measure import samplers as bench
    from pops.prior.samplers import SAMPLERS

    wanted = listed(operators, "--operators", "texturing,union")
    chosen = list(SAMPLERS) if names is None else listed(names, "--samplers", "ddim,dpm++2m")
    numbers = listed(steps_list, "--steps-list", "4,8")
    fine = all(n.isascii() and n.isdigit() and 1 <= int(n) <= 1000 for n in numbers)
    ensure(fine, f"--steps-list takes whole numbers from 1 to 1000 with commas, such as 4,8; got {steps_list!r}")
    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    for name in wanted:
        p.model.spec(name)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(
            p, operators=wanted, samplers=chosen, steps=[int(n) for n in numbers], count=count, seed=seed, draws=draws,
            guidance=guidance, render=not no_render, render_steps=render_steps, on_progress=on_progress,
        )  # fmt: skip
    tell(bench.markdown(report), asdict(report), markdown, title="Samplers at few steps", as_json=json_output)
