"""Speed of pops compared with the public way, in turn in one run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pops.cli.bench.shared import Markdown, listed, numbers, tell, whole_numbers
from pops.cli.shell import Debug, Device, Json, Quiet, command, progress
from pops.files import check_place

if TYPE_CHECKING:
    from pops.prior.linear import Precision

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
@command
def prior(
    layers: Annotated[int, typer.Option("--layers", help="Layers of the prior; 20 is full size.", min=1)] = 20,
    batch: Annotated[str, typer.Option("--batch", help="Batch sizes, with commas.")] = "1,2,8,32",
    guidance: Annotated[str, typer.Option("--guidance", help="Guidance scales, with commas; 1 is none.")] = "1,8",
    precision: Annotated[
        str | None, typer.Option("--precision", help="Precisions of ours, with commas.", show_default="all but float16")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of the sampler.", min=2, max=1000)] = 25,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, all ways in turn; medians are reported.", min=1)] = 3,
    public_steps: Annotated[
        int, typer.Option("--public-steps", help="Steps of the public way run at batches above 1, scaled up.", min=1)
    ] = 1,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Do not measure peak memory.")] = False,
    no_training: Annotated[bool, typer.Option("--no-training", help="Do not measure training steps.")] = False,
    train_layers: Annotated[
        int, typer.Option("--train-layers", help="Layers of the prior that is trained.", min=1)
    ] = 4,
    train_batch: Annotated[str, typer.Option("--train-batch", help="Samples per step, with commas.")] = "1,2,4,8",
    markdown: Markdown = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The engine compared with the public way, in turn in one run.

    A prior of full size with random weights. Takes about half an hour on two idle cores; needs no model.

    Examples:

    \b
        python -m benchmarks prior --markdown docs/bench-prior.md
        python -m benchmarks prior --batch 1 --guidance 8 --precision bfloat16,int8 --no-training
        python -m benchmarks prior --layers 2 --rounds 1 --json > figures.json
    """
    from benchmarks import prior as bench
    from benchmarks import prior_tables
    from pops.models.model import device_for

    if markdown is not None:
        check_place(markdown)
    place = device_for(device)
    usual = "float32,bfloat16" + (",int8" if place == "cpu" else "")
    precisions = tuple(listed(usual if precision is None else precision, "--precision", "float32,int8"))
    plan = bench.Plan(
        layers=layers, steps=steps, rounds=rounds, public_steps=public_steps, memory=not no_memory,
        training=not no_training, train_layers=train_layers, device=place,
        batches=tuple(whole_numbers(batch, "--batch", "1,8")),
        guidances=tuple(numbers(guidance, "--guidance", "1,8")),
        precisions=cast("tuple[Precision, ...]", precisions),
        train_batches=tuple(whole_numbers(train_batch, "--train-batch", "1,8")),
    )  # fmt: skip
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(plan, on_progress=on_progress)
    tell(
        prior_tables.markdown(report),
        asdict(report),
        markdown,
        title="The engine against the public way",
        as_json=json_output,
    )


@app.command()
@command
def render(
    steps: Annotated[int, typer.Option("--steps", help="Steps of the renderers.", min=1, max=1000)] = 10,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, both in turn; medians are reported.", min=1)] = 7,
    markdown: Markdown = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rendering through pops compared with diffusers' bare pipelines.

    The model's own renderer, and a Kandinsky decoder of random weights.

    Examples:

    \b
        python -m benchmarks render
        python -m benchmarks render --steps 50 --rounds 5 --markdown docs/bench-render.md
    """
    import pops
    from benchmarks import render as bench

    if markdown is not None:
        check_place(markdown)
    p = pops.load("tiny", device=device)
    with progress(quiet=quiet) as on_progress:
        report = bench.measure(p, steps=steps, rounds=rounds, on_progress=on_progress)
    tell(
        bench.markdown(report),
        bench.figures(report),
        markdown,
        title="A picture through pops and through diffusers",
        as_json=json_output,
    )


@app.command()
@command
def mix(
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, both in turn; medians are reported.", min=1)] = 7,
    markdown: Markdown = None,
    device: Device = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """One mix compared with diffusers' image-to-image, which calls the networks as often.

    Examples:

    \b
        python -m benchmarks mix --rounds 3
    """
    import pops
    from benchmarks import mix_time

    if markdown is not None:
        check_place(markdown)
    report: dict[str, Any] = mix_time.measure(pops.load("tiny", device=device), rounds=rounds)
    tell(
        mix_time.table(report), report, markdown, title="Mixes through pops and through diffusers", as_json=json_output
    )


if __name__ == "__main__":
    app()
