"""pops train: teaches a new operator from a folder of examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.shell import Debug, Device, Json, Quiet, command, print_json, progress

if TYPE_CHECKING:
    from pops.training.learning import Learnt


@command
def train(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of examples, of what pops data encode wrote, or a spec (.yaml).",
            show_default=False,
            metavar="FOLDER|SPEC",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Operator folder to write.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model name, folder or hub id.", show_default="tiny")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the operator.", show_default="the folder's")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from an operator (a name or a folder), from base, or from the nearest operator.",
            show_default="nearest",
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", help="Train on so many examples.", min=1, show_default="all")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any setting of a spec, such as lr=1e-4 or steps=500. Repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Stop after so many minutes of training.", show_default="no limit")
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option("--tracker", help="tensorboard, trackio or wandb: also logs there.", show_default="none"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print samples, parameters, memory and time by a measured step, and exit.")
    ] = False,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Teach a new operator from a folder of examples.

    Starts from the model's operator that comes nearest to the examples, keeps the best of its validations, and says
    whether the relation was learnt. The result is an operator folder.

    Examples:

    \b
        pops train examples -o mirrored
        pops run "mirrored(teapot.png)" --operator mirrored=mirrored -o out.png
        pops train examples -o mirrored --from texturing --shots 50 --set lr=1e-4
        pops train spec.yaml -o run --resume
        pops train examples -o run --dry-run
    """
    from pops.models.model import Model
    from pops.recipe import Loading
    from pops.training.learning import learn
    from pops.training.parallel import is_first
    from pops.training.rehearsal import rehearse
    from pops.training.spec import TrainSpec, parse_settings

    changes: dict[str, Any] = parse_settings(settings or ())
    given = {"model": model, "name": name, "from": start, "shots": shots, "minutes": minutes}
    changes |= {key: value for key, value in given.items() if value is not None}
    spec = TrainSpec.read(source, changes)
    loaded = Model(Loading(model=spec.model, device=device))

    def note(line: str) -> None:
        if not quiet:
            typer.echo(f"pops: {line}", err=True)

    if dry_run:
        plan = rehearse(spec, loaded)
        print_json({"ok": True, **plan.to_data()}) if json_output else typer.echo(str(plan))
        return
    with progress(quiet=quiet or json_output or not is_first()) as on_progress:
        done = learn(spec, loaded, out, resume=resume, tracker=tracker, on_progress=on_progress, on_note=note)
    if not is_first():  # of several processes
        return
    if json_output:
        print_json({"ok": True, **done.to_data()})
    elif not quiet:
        typer.echo(_summary(done))


def _summary(done: Learnt) -> str:
    """Returns what came of the run, and what to do with it."""
    operator, figures = done.operator, done.figures
    roles = ", ".join('"a word"' if role.kind == "text" else f"{role.name}.png" for role in operator.roles)
    lines = [
        f"{operator.name}: {done.verdict}",
        f"cosine to the truth {figures['cosine']:.3f} (the average {figures['average_cosine']:.3f}), "
        f"recall@1 {figures['recall_at_1']:.0%}; {done.samples} examples, from {done.start}, "
        f"{done.steps} steps in {done.seconds:.0f} s",
        f"try it: pops run '{operator.name}({roles})' --operator {operator.name}={done.folder} -o out.png",
    ]
    return "\n".join(lines)
