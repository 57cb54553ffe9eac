"""pops evaluate: measures an operator on held-out examples, against baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.errors import ensure
from pops.files import check_place, expanded, write_whole

DRAWN = 12  # examples of a report, unless given


@command
def evaluate(
    operator: Annotated[
        str,
        typer.Argument(
            help="Name of an operator of the model, operator folder, or repo (user/repo).",
            show_default=False,
            metavar="OPERATOR",
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of examples.", show_default=False)],
    split: Annotated[
        str | None, typer.Option("--split", help="train, validation or test.", show_default="the held-out split")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="Measure so many examples.", min=2, show_default="all")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write a report with images (.html).")] = None,
    pictures: Annotated[int, typer.Option("--pictures", help="Examples drawn in the report.", min=1)] = DRAWN,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the first example.", min=0)] = 0,
    draws: Annotated[int, typer.Option("--draws", help="Seeds of each example, for diversity.", min=1)] = 3,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Sampling steps.", min=1, max=1000, show_default="the operator's")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Guidance scale.", min=0, show_default="the operator's")
    ] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure an operator on held-out examples: its results against the truth, and against baselines.

    Examples:

    \b
        pops evaluate mirrored --data examples
        pops evaluate mirrored --data examples --report report.html
        pops evaluate texturing --data examples --json
    """
    import pops
    from pops.measure import examples as bench
    from pops.measure.report import html, table
    from pops.operators.checkpoint import SPEC_FILE, load_spec
    from pops.operators.sharing import located

    if report is not None:
        check_place(report)
        told = f"a report is a file of HTML; name it {report.stem}.html"
        ensure(report.suffix.lower() in (".html", ".htm"), told)
    folder = located(operator) if "/" in operator else expanded(operator)
    given = {}
    name = operator
    if (folder / SPEC_FILE).is_file() or "/" in operator:
        name = load_spec(folder).name
        given = {name: folder}
    p = pops.load(model, operators=given, device=device)
    with progress(quiet=quiet or json_output) as on_progress:
        done = bench.evaluate(
            p, name, data, split=split, most=count, seed=seed, draws=draws, steps=steps, guidance=guidance,
            on_progress=on_progress,
        )  # fmt: skip
        if report is not None:
            page = html(p, done, most=pictures, seed=seed, on_progress=on_progress)
            with write_whole(report) as temporary:
                temporary.write_text(page, encoding="utf-8")
    if json_output:
        print_json({"ok": True, **done.to_data(), "report": None if report is None else str(report)})
    elif not quiet:
        typer.echo(table(done))
        for note in done.notes:
            typer.echo(f"pops: {note}", err=True)
