"""pops serve: the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from pops.cli.options import OPTIONS, named_paths, with_options
from pops.cli.shell import Debug, command

HELP = """Serve pops over HTTP: photos in, jobs queued, images out.

Everything is loaded once. Jobs survive a restart, and lie with photos and images in --data.

Examples:

\b
    pops serve
    pops serve --port 8000 --data /srv/pops
    pops serve --host 0.0.0.0 --allow-host pops.example.org --token SECRET
    pops serve --model tiny --library mine=photos.library
    pops run "texturing(teapot.png, tiger.png)" -o out.png --server http://127.0.0.1:7860
"""
LOADING = ("decoder", "dtype", "precision", "operators", "renderer", "adapter", "controlnets", "offload", "device")


@command
@with_options("options", OPTIONS, LOADING)
def serve(
    options: Mapping[str, Any],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0: any free one.", min=0, max=65535)] = 7860,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Model; repeatable, the first is the default. [tiny]")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of jobs, photos and images.")] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="POPS_TOKEN", help="What requests must carry; needed beyond loopback."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Name by which browsers may reach it. Repeatable.")
    ] = None,
    library: Annotated[
        list[str] | None, typer.Option("--library", help="NAME=PATH: a library that recipes may name. Repeatable.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="Folder of photos that recipes name examples/...")
    ] = None,
    shared_batches: Annotated[
        bool,
        typer.Option("--shared-batches", help="Compute images of several jobs together: faster, last bits differ."),
    ] = False,
    queue: Annotated[int, typer.Option("--queue", help="Jobs that may wait.", min=1)] = 256,
    history: Annotated[int, typer.Option("--history", help="Ended jobs that are kept.", min=1)] = 1000,
    disk: Annotated[float, typer.Option("--disk", help="GB that photos and images may take.", min=0.01)] = 10,
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds that a job may take.", min=1)] = 600,
    log_json: Annotated[bool, typer.Option("--log-json", help="Write the log as lines of JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Runs the server; the help text is HELP."""
    from pops.files import expanded
    from pops.recipe import Loading

    serving = server()
    from pops.server.settings import Limits, Settings

    names = model or ["tiny"]
    first = Loading(model=names[0], **options)
    settings = Settings(
        data=expanded(data) if data else default_data(),
        models=(first, *(Loading(model=name) for name in names[1:])),
        host=host,
        port=port,
        token=token or None,
        hosts=tuple(allow_host or ()),
        libraries={n: expanded(p).resolve() for n, p in named_paths(library or [], "--library", "mine=DIR").items()},
        examples=expanded(examples) if examples else None,
        shared=shared_batches,
        limits=Limits(queue=queue, history=history, disk=int(disk * 2**30), seconds=seconds),
    )
    with serving.logs_on_stderr(as_json=log_json):
        serving.serve(settings, lambda at: typer.echo(f"pops listens on {at}/api/v1 (data in {settings.data})"))


def server() -> ModuleType:
    """Returns pops.server.serving; MissingExtra where what it stands on is not installed."""
    from pops.errors import MissingExtra

    try:
        from pops.server import serving
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in ("fastapi", "uvicorn", "prometheus_client", "multipart", "filelock"):
            raise
        raise MissingExtra(str(e.name), "server") from None
    return serving


def default_data() -> Path:
    """Returns the folder of the server's data, unless one is named."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "pops" / "server"
