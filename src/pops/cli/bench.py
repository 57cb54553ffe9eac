"""pops bench: measurements, as a table for people or one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pops.cli import bench_mix
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.errors import ConfigError, ensure
from pops.files import check_place, write_whole

if TYPE_CHECKING:
    from pops.prior.linear import Precision

Operators = Annotated[str, typer.Option("--operators", help="Which, with commas.", show_default="all four")]
Count = Annotated[int, typer.Option("--count", "-n", help="Held-out triplets of each operator.", min=2)]
First = Annotated[int, typer.Option("--seed", "-s", help="The first triplet.", min=0)]
NoRender = Annotated[bool, typer.Option("--no-render", help="Embeddings only: no pictures, no oracle.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Of the operators.", min=0, show_default="each's own")
]
RenderSteps = Annotated[
    int | None, typer.Option("--render-steps", help="Of the renderer.", min=1, show_default="the model's")
]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the table here, too.")]

app = typer.Typer(help="Measure a model against the truth.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    pass


app.command("mix")(bench_mix.mix)


@app.command("toybox")
@command
def toybox(
    operators: Operators = "texturing,union,scene,instruct",
    count: Count = 500,
    seed: First = 0,
    no_render: NoRender = False,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Of the operators.", min=1, show_default="each's own")
    ] = None,
    guidance: Guidance = None,
    sampler: Annotated[str, typer.Option("--sampler", help="Of the operators.")] = "ancestral",
    render_steps: RenderSteps = None,
    markdown: Markdown = None,
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

    wanted = _listed(operators, "--operators", "texturing,union")
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
    about = {k: v for k, v in asdict(report).items() if k != "operators"}
    _tell(bench.markdown(report), {**report.operators, "about": about}, markdown, as_json=json_output)


@app.command("samplers")
@command
def samplers(
    operators: Operators = "texturing,union,scene,instruct",
    names: Annotated[
        str | None, typer.Option("--samplers", help="Which, with commas.", show_default="all there are")
    ] = None,
    steps_list: Annotated[str, typer.Option("--steps-list", help="Numbers of steps, with commas.")] = "1,2,4,6,8,25",
    count: Count = 500,
    seed: First = 0,
    draws: Annotated[int, typer.Option("--draws", help="How often each triplet is sampled.", min=1)] = 2,
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
    """Samplers at few steps, beside the ancestral sampler at 25: how much do they lose?

    Examples:

    \b
        pops bench samplers --no-render
        pops bench samplers --no-render --samplers dpm++2m --steps-list 6,8 --guidance 4
        pops bench samplers --samplers dpm++2m --steps-list 8 --count 100 --render-steps 12
    """
    import pops
    from pops.bench import samplers as bench
    from pops.prior.samplers import SAMPLERS

    wanted = _listed(operators, "--operators", "texturing,union")
    chosen = list(SAMPLERS) if names is None else _listed(names, "--samplers", "ddim,dpm++2m")
    numbers = _listed(steps_list, "--steps-list", "4,8")
    fine = all(n.isascii() and n.isdigit() and 1 <= int(n) <= 1000 for n in numbers)
    ensure(fine, f"--steps-list takes whole numbers from 1 to 1000 with commas, such as 4,8; got {steps_list!r}")
    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    for name in wanted:
        p.spec(name)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(
            p, operators=wanted, samplers=chosen, steps=[int(n) for n in numbers], count=count, seed=seed, draws=draws,
            guidance=guidance, render=not no_render, render_steps=render_steps, on_progress=on_progress,
        )  # fmt: skip
    _tell(bench.markdown(report), asdict(report), markdown, as_json=json_output)


@app.command("prior")
@command
def prior(
    layers: Annotated[int, typer.Option("--layers", help="Of the prior; 20 is full size.", min=1)] = 20,
    batch: Annotated[str, typer.Option("--batch", help="Items at once, with commas.")] = "1,2,8,32",
    guidance: Annotated[str, typer.Option("--guidance", help="Scales, with commas; 1 is none.")] = "1,8",
    precision: Annotated[
        str | None, typer.Option("--precision", help="Of ours, with commas.", show_default="all but float16")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Of the sampler.", min=2, max=1000)] = 25,
    rounds: Annotated[int, typer.Option("--rounds", help="Of everyone in turn; medians are told.", min=1)] = 3,
    public_steps: Annotated[
        int, typer.Option("--public-steps", help="Of the public way at batches above 1, times what is missing.", min=1)
    ] = 1,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Leave peak memory out.")] = False,
    no_training: Annotated[bool, typer.Option("--no-training", help="Leave training steps out.")] = False,
    train_layers: Annotated[int, typer.Option("--train-layers", help="Of the prior that is trained.", min=1)] = 4,
    train_batch: Annotated[str, typer.Option("--train-batch", help="Samples a step, with commas.")] = "1,2,4,8",
    markdown: Markdown = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The engine against the public way: a full-size prior of random weights, both in turn in one run.

    Takes about half an hour on two quiet cores; needs no model.

    Examples:

    \b
        pops bench prior --markdown docs/bench-prior.md
        pops bench prior --batch 1 --guidance 8 --precision bfloat16,int8 --no-training
        pops bench prior --layers 2 --rounds 1 --json > figures.json
    """
    import pops
    from pops.bench import prior as bench
    from pops.bench import prior_tables

    if markdown is not None:
        check_place(markdown)
    place = pops.load("tiny", device=device).device
    usual = "float32,bfloat16" + (",int8" if place == "cpu" else "")
    precisions = tuple(_listed(usual if precision is None else precision, "--precision", "float32,int8"))
    plan = bench.Plan(
        layers=layers, steps=steps, rounds=rounds, public_steps=public_steps, memory=not no_memory,
        training=not no_training, train_layers=train_layers, device=place,
        batches=tuple(_whole_numbers(batch, "--batch", "1,8")),
        guidances=tuple(_numbers(guidance, "--guidance", "1,8")),
        precisions=cast("tuple[Precision, ...]", precisions),
        train_batches=tuple(_whole_numbers(train_batch, "--train-batch", "1,8")),
    )  # fmt: skip
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(plan, on_progress=on_progress)
    _tell(prior_tables.markdown(report), asdict(report), markdown, as_json=json_output)


@app.command("retrieval")
@command
def retrieval(
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures in the library.", min=2)] = 10_000,
    queries: Annotated[int, typer.Option("--queries", help="Held-out combinations searched for.", min=1)] = 200,
    seed: Annotated[int, typer.Option("--seed", "-s", help="The first query.", min=0)] = 0,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Keep pictures and library here; a stopped run goes on.")
    ] = None,
    markdown: Markdown = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Composed image search in a library of toybox pictures: does scene(texturing(A, B), C) find the true one?

    Examples:

    \b
        pops bench retrieval
        pops bench retrieval --count 300 --queries 20
        pops bench retrieval --cache out/retrieval --markdown docs/bench-retrieval.md
    """
    import pops
    from pops.bench import retrieval as bench

    if markdown is not None:
        check_place(markdown)
    p = pops.load(model, device=device)
    for name in ("texturing", "scene"):
        p.spec(name)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(p, count=count, queries=queries, seed=seed, cache=cache, on_progress=on_progress)
    _tell(bench.markdown(report), asdict(report), markdown, as_json=json_output)


@app.command("render")
@command
def render(
    steps: Annotated[int, typer.Option("--steps", help="Of the renderers.", min=1, max=1000)] = 10,
    rounds: Annotated[int, typer.Option("--rounds", help="Of both in turn; medians are told.", min=1)] = 7,
    markdown: Markdown = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rendering through pops beside the bare call of diffusers' pipeline: tiny's renderer, and a random Kandinsky's.

    Examples:

    \b
        pops bench render
        pops bench render --steps 50 --rounds 5 --markdown docs/bench-render.md
    """
    import pops
    from pops.bench import render as bench

    if markdown is not None:
        check_place(markdown)
    p = pops.load("tiny", device=device)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(p, steps=steps, rounds=rounds, on_progress=on_progress)
    _tell(bench.markdown(report), bench.figures(report), markdown, as_json=json_output)


def _tell(table: str, figures: dict[str, Any], markdown: Path | None, *, as_json: bool) -> None:
    """The figures on stdout, as a table or a JSON object, and the table in a file if one was named."""
    if markdown is not None:
        with write_whole(markdown) as temporary:
            temporary.write_text(table, encoding="utf-8")
    if as_json:
        print_json(figures)
    else:
        typer.echo(table)


def _whole_numbers(text: str, option: str, example: str) -> list[int]:
    """Numbers of at least 1, with commas."""
    names = _listed(text, option, example)
    fine = all(n.isascii() and n.isdigit() and int(n) >= 1 for n in names)
    ensure(fine, f"{option} takes whole numbers of at least 1 with commas, such as {example}; got {text!r}")
    return [int(n) for n in names]


def _numbers(text: str, option: str, example: str) -> list[float]:
    """Numbers of at least 0, with commas."""
    told = f"{option} takes numbers with commas, such as {example}; got {text!r}"
    try:
        numbers = [float(n) for n in _listed(text, option, example)]
    except ValueError:
        raise ConfigError(told) from None
    ensure(all(0 <= n < float("inf") for n in numbers), told)
    return numbers


def _listed(text: str, option: str, example: str) -> list[str]:
    """The names of an option that takes several, with commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    ensure(bool(names), f"{option} names none; write for instance {example}")
    return names
