"""Shared by all commands: common options, errors as one line and an exit code, JSON, tables and the progress bar.

stdout carries data (paths, tables, one JSON object), stderr everything else. Exit codes: 0 success, 1 a fault of pops
or of the machine, 2 a mistake in the request, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import codecs
import errno
import functools
import gc
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
import typer.core

from pops.errors import PopsError, Span
from pops.files import SHOWN, shown
from pops.progress import OnProgress

if TYPE_CHECKING:
    from pops.recipe import Recipe

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.", envvar="POPS_DEBUG")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Model name, folder or hub id.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Decoder = Annotated[
    str | None, typer.Option("--decoder", help="Decoder folder or hub id, in place of the model's own.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load the models and files that a recipe names, whoever wrote it.")
]
P = ParamSpec("P")


# An expression that begins with a minus: "-0.5*a.png + b.png", "-a.png + b.png".
_NEGATIVE = re.compile(r"-\s*(?:[\d.]+\s*\*|[^-\s]\S*\s+[-+]\s)")


def _not_an_option(word: str) -> str:
    """Returns a word of the command line so that an expression that begins with a minus is no option."""
    return f" {word}" if _NEGATIVE.match(word) else word


class Root(typer.core.TyperGroup):
    """The group of all commands. With --json, it prints usage errors as a JSON object, too."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # of typer's context
    ) -> Any:
        """Runs the command line and exits, as typer does."""
        prepare_streams()
        args = [_not_an_option(word) for word in (sys.argv[1:] if args is None else args)]
        options = {
            "prog_name": prog_name, "complete_var": complete_var, "windows_expand_args": windows_expand_args, **extra
        }  # fmt: skip
        if "--json" not in args or not standalone_mode:
            return super().main(args, standalone_mode=standalone_mode, **options)
        try:
            code = super().main(args, standalone_mode=False, **options)
        except Exception as error:
            if not hasattr(error, "format_message"):  # only typer's usage errors have it
                raise
            error.show()  # type: ignore[attr-defined]
            code = 2
            print_failure("usage_error", error.format_message(), code)
        return sys.exit(code)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Makes a command report errors as one line and an exit code; with --debug they are raised."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        prepare_streams()
        _set_environment()
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter)):
                raise
            if kwargs.get("debug") and not isinstance(error, KeyboardInterrupt):
                raise
            raise typer.Exit(_report(error, as_json=bool(kwargs.get("json_output")))) from None

    return guarded


def _report(error: BaseException, *, as_json: bool) -> int:
    """Prints the error as one line on stderr, with --json also as an object on stdout; returns the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of our stdout (head, less) has closed it: not an error
        _drop(sys.stdout)
        return 0
    if isinstance(error, KeyboardInterrupt):
        code, kind, message, shown = 130, "cancelled", "stopped; no partial files were left", None
    elif isinstance(error, PopsError):
        code, kind, message, shown = error.exit_code, _snake(type(error).__name__), str(error), error.pretty()
    elif isinstance(error, MemoryError):
        code, kind, shown = 1, "memory_error", None
        message = "out of memory; ask for fewer or smaller images"
    elif isinstance(error, OSError) and error.filename is None and error.errno in _STREAM_ERRORS:
        _drop(sys.stdout)
        code, kind, shown, as_json = 1, "output_error", None, False
        message = f"stdout cannot be written ({error.strerror or error}); send it elsewhere"
    else:
        first = _cut((str(error).strip() or "no message").splitlines()[0])
        code, kind, shown = 1, "internal_error", None
        message = f"internal error ({type(error).__name__}: {first}); run again with --debug for the traceback"
    if as_json:
        print_failure(kind, message, code, span=_span(error), suggestion=getattr(error, "suggestion", None))
    try:
        typer.echo(f"pops: {shown or message}", err=True)
    except (OSError, ValueError):  # stderr is gone or full; the exit code still tells
        _drop(sys.stderr)
    return code


def prepare_streams() -> None:
    """Makes stdout and stderr take every text, and be there.

    What a console cannot show is escaped (\\u5199), and bytes of file names that are no Unicode come out on stdout as
    they were, so that pipes get the true name. A closed stdout or stderr swallows what is printed, and keeps its
    number, which the next file to be opened would get.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name, errors in (("stdout", _ESCAPE), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="replace"))  # noqa: PTH123, SIM115
        elif stream.errors == "strict" or stream.errors == "surrogateescape":
            with suppress(AttributeError, ValueError, OSError):  # a test's or a notebook's stream
                stream.reconfigure(errors=errors)


_ESCAPE = "pops-escape"
_STREAM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # of stdout, where no file is named


def _escape(error: UnicodeError) -> tuple[bytes | str, int]:
    """Encodes what a stream cannot: bytes that Python took into a name as they were, others as backslash escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    done = [
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace") for c in bad
    ]
    return b"".join(done), error.end


codecs.register_error(_ESCAPE, _escape)


def _drop(stream: Any) -> None:
    """Sends the rest of what is printed there nowhere: also what Python flushes at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _snake(name: str) -> str:
    """Returns PhotoError as photo_error."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _set_environment() -> None:
    """Sets the environment variables by which libraries load quietly and threads stop spinning, unless set already."""
    for key, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # OpenMP threads that wait by spinning take cores from other processes; threads that sleep at once make the
        # engine's short layers 1.5 times as slow. So they spin for a few microseconds. Read when torch is imported.
        "GOMP_SPINCOUNT": "20000",
    }.items():
        os.environ.setdefault(key, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def print_failure(
    kind: str, message: str, code: int, *, span: Span | None = None, suggestion: str | None = None
) -> None:
    """Prints the JSON object of a failed command.

    span: the characters of the expression that are wrong, [start, end); suggestion: what was probably meant.
    """
    error = {"code": kind, "message": message, "exit_code": code}
    print_json({"ok": False, "error": error, "span": span, "suggestion": suggestion})


def _span(error: BaseException) -> Span | None:
    """Returns the error's span in the expression as it was given: `_not_an_option` may have put a space before it."""
    span, text = getattr(error, "span", None), getattr(error, "text", "")
    if span is None:
        return None
    shift = 1 if text[:1] == " " and _NEGATIVE.match(text[1:]) and text not in sys.argv else 0
    return (max(0, span[0] - shift), max(0, span[1] - shift))


def print_json(data: object) -> None:
    """Prints one JSON object on stdout, in ASCII: any console and any name of a file will do."""
    typer.echo(json.dumps(data, indent=2, default=str))


def print_table(title: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table as plain text: columns as wide as their longest cell, two spaces apart."""
    cells = [[str(c) for c in row] for row in ([c.upper() for c in title], *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(title))]
    for row in cells:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def trusted(recipe: Recipe, trust: bool, *, ask: bool = True) -> Recipe:
    """Returns a recipe that was read from a file as a trusted one: with --trust, or if the user says so on a terminal.

    One that names nothing to load is returned as it is, and so is one that is not trusted: to load it is then refused.
    """
    if trust or not recipe.foreign:
        return recipe.trusted()
    if not (ask and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        return recipe
    for setting, name in recipe.foreign.items():
        typer.echo(f"pops: the recipe would load {setting} {shown(name)}", err=True)
    return recipe.trusted() if typer.confirm("Do you trust its author?", err=True) else recipe


@contextmanager
def uncollected() -> Iterator[None]:
    """Turns the garbage collector off, and afterwards excludes all objects that exist from later collections.

    Imports create millions of objects that stay alive; scanning them repeatedly takes a third of a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def progress(*, quiet: bool) -> Iterator[OnProgress | None]:
    """Yields a callback that draws a progress bar on stderr; None if stderr is no terminal, or with --quiet."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    left = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *left)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield show
