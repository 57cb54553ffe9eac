"""pops bench: measures a model; prints a table, or one JSON object."""

from __future__ import annotations

import typer

from pops.cli.bench.mix import mix
from pops.cli.bench.operators import samplers, toybox
from pops.cli.bench.render import control, retrieval

app = typer.Typer(
    help="Measure a model on toybox, where the true result is known.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def root() -> None:
    pass


for measurement in (toybox, samplers, control, retrieval, mix):
    app.command()(measurement)
