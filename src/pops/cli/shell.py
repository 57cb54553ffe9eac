"""What every command shares: errors become one line and an exit code, progress goes to a terminal only.

stdout carries data (paths, tables, one JSON object), stderr everything else. Exit codes: 0 done, 2 the user's
mistake, 1 ours, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
import typer.core

from pops.errors import PopsError
from pops.progress import OnProgress

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", envvar="POPS_DEBUG")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A model's name, its folder or a hub id.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Decoder = Annotated[
    str | None, typer.Option("--decoder", help="A decoder's folder or hub id, instead of the model's own.")
]
RendererName = Annotated[
    str | None, typer.Option("--renderer", help="Other than the model's own: its name, folder or hub id.")
]
Command = TypeVar("Command", bound=Callable[..., None])


class Root(typer.core.TyperGroup):
    """The commands, as one; with --json a mistake of usage is told in a JSON object, too."""

    def main(self, *args: Any, **how: Any) -> Any:
        words = how.get("args", args[0] if args else None)
        if "--json" not in (sys.argv[1:] if words is None else words) or not how.get("standalone_mode", True):
            return super().main(*args, **how)
        try:
            code = super().main(*args, **{**how, "standalone_mode": False})
        except Exception as error:
            if not hasattr(error, "format_message"):  # typer's own errors, which it shows, have it
                raise
            error.show()  # type: ignore[attr-defined]
            code = 2
            print_failure("usage_error", error.format_message(), code)
        return sys.exit(code)


def command(function: Command) -> Command:
    """Wraps a command so that no error of it reaches the user as a traceback (unless --debug)."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        _hush()
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter)):
                raise
            if kwargs.get("debug") and not isinstance(error, KeyboardInterrupt):
                raise
            raise typer.Exit(_report(error, as_json=bool(kwargs.get("json_output")))) from None

    return guarded  # type: ignore[return-value]


def _report(error: BaseException, *, as_json: bool) -> int:
    """One clear line on stderr (and the JSON object on stdout, if that was asked for) -> the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, which is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, KeyboardInterrupt):
        code, kind, message, shown = 130, "cancelled", "stopped; nothing half-written remains", None
    elif isinstance(error, PopsError):
        code, kind, message, shown = error.exit_code, _snake(type(error).__name__), str(error), error.pretty()
    elif isinstance(error, MemoryError):
        code, kind, shown = 1, "memory_error", None
        message = "not enough memory; ask for fewer or smaller pictures"
    else:
        first = (str(error).strip() or "no message").splitlines()[0]
        code, kind, shown = 1, "internal_error", None
        message = f"something went wrong in pops ({type(error).__name__}: {first}); --debug shows where"
    if as_json:
        print_failure(kind, message, code)
    typer.echo(f"pops: {shown or message}", err=True)
    return code


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _hush() -> None:
    """Settings of the libraries below, unless the user made them: quiet loading, threads that soon sleep."""
    for key, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Threads that wait by spinning take the cores from whatever else runs; those that sleep at once make the
        # engine's short layers half as slow again. So they spin for some microseconds. Read when torch is imported.
        "GOMP_SPINCOUNT": "20000",
    }.items():
        os.environ.setdefault(key, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def print_failure(kind: str, message: str, code: int) -> None:
    """What --json prints where the command failed."""
    print_json({"ok": False, "error": {"code": kind, "message": message, "exit_code": code}})


def print_json(data: Any) -> None:
    """One JSON object, whole, on stdout."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_table(title: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their longest cell, two spaces apart; plain text, so that it pipes well."""
    cells = [[str(c) for c in row] for row in ([c.upper() for c in title], *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(title))]
    for row in cells:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


@contextmanager
def uncollected() -> Iterator[None]:
    """Around a command: nothing is collected within, and what it leaves is not looked at again. Imports make millions
    of objects that live on, and going through them again and again takes a third of a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def progress(*, quiet: bool) -> Iterator[OnProgress | None]:
    """A bar on stderr when a person watches, else None: a callback (done, total, what)."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield show
