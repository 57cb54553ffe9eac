"""pops studio: the server on this machine, and its page in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.options import OPTIONS, named_paths, with_options
from pops.cli.serve import LOADING, default_data, server
from pops.cli.shell import Debug, command

HELP = """Open the studio: compose pictures in the browser, with your own photos.

It runs on this machine alone, and needs no network. Ctrl-C ends it; everything is kept.

Examples:

\b
    pops studio
    pops studio --library mine=photos.library
    pops studio --no-browser --port 8000
"""
USUAL = 7860


@command
@with_options("options", OPTIONS, LOADING)
def studio(
    options: Mapping[str, Any],
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    port: Annotated[
        int | None, typer.Option("--port", help="Port on this machine. [7860, or any free one]", min=0, max=65535)
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Model; repeatable, the first is the default. [tiny]")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of projects, photos and images.")] = None,
    library: Annotated[
        list[str] | None, typer.Option("--library", help="NAME=PATH: a library to search. Repeatable.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Runs the server and opens its page; the help text is HELP."""
    import logging

    from pops.errors import ConfigError, ensure
    from pops.files import expanded
    from pops.recipe import Loading

    serving = server()
    from pops.server.page import assets
    from pops.server.settings import Settings

    ensure(bool(assets()), "the studio is not built; run make studio in the clone, or install a wheel", ConfigError)
    names = model or ["tiny"]
    settings = Settings(
        data=expanded(data) if data else default_data(),
        models=(Loading(model=names[0], **options), *(Loading(model=name) for name in names[1:])),
        gallery=True,
        port=free_port(serving) if port is None else port,
        libraries={n: expanded(p).resolve() for n, p in named_paths(library or [], "--library", "mine=DIR").items()},
    )

    def listening(address: str) -> None:
        typer.echo(f"the studio is at {address} (data in {settings.data}); Ctrl-C ends it")
        if browser:
            show(address)

    with serving.logs_on_stderr(level=logging.WARNING):
        serving.serve(settings, listening, access=False)


def free_port(serving: Any) -> int:
    """Returns the usual port, or 0 (any) where something else listens on it."""
    from pops.errors import ConfigError

    try:
        serving.bound("127.0.0.1", USUAL).close()
    except ConfigError:
        return 0
    return USUAL


def show(address: str) -> None:
    """Opens an address in the browser, in a thread of its own: some browsers keep it waiting."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
