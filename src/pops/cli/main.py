"""The table of commands. Imports nothing heavy but typer, so that `pops --help` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from pops.cli import (
    bench,
    data,
    doctor,
    evaluate,
    examples,
    index,
    mix,
    models,
    operators,
    renderers,
    run,
    serve,
    show,
    studio,
    toybox,
    train,
)
from pops.cli.shell import Root

HELP = """Compose pictures like equations: photos are the operands, trained operators the signs.

Examples:

\b
    pops run "texturing(teapot.png, tiger.png)" -o out.png
    pops run "scene(texturing(teapot.png, tiger.png), beach.png)" -o out.png
    pops run 'instruct(rabbit.png, "golden")' -o out.png --equation strip.png
    pops mix rabbit.png tiger -o mixed.png
    pops show out.png
    pops toybox "a tiger teapot on a beach" -o teapot.png
"""

app = typer.Typer(
    cls=Root,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", help=run.HELP)(run.run)
app.command("mix", help=mix.HELP)(mix.mix)
app.command("serve", help=serve.HELP)(serve.serve)
app.command("studio", help=studio.HELP)(studio.studio)
app.command("index")(index.index)
app.command("search")(index.search)
app.command("show")(show.show)
app.add_typer(data.app, name="data")
app.add_typer(operators.app, name="operators")
app.add_typer(models.app, name="models")
app.command("renderers")(renderers.renderers)
app.command("examples")(examples.examples)
app.command("toybox")(toybox.toybox)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(bench.app, name="bench")
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from pops import __version__

        typer.echo(f"pops {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    app()
