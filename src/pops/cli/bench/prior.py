"""pops bench prior: the engine against the public way."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pops.cli.bench.shared import Markdown, listed, numbers, tell, whole_numbers
from pops.cli.shell import Debug, Device, Json, Quiet, command, progress
from pops.files import check_place

if TYPE_CHECKING:
    from pops.prior.linear import Precision


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
    """The engine against the public way, in turn in one run.

    A prior of the full size, with random weights.

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
    tell(prior_tables.markdown(report), asdict(report), markdown, as_json=json_output)
