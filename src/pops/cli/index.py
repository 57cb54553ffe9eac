"""pops index: encodes a folder of photos into a library. pops search: finds the photos nearest to an expression."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.files import shown

if TYPE_CHECKING:
    from pops.library import Report

LISTED = 20  # skipped files that are listed one by one
ALIKE = 3  # more of them skipped for one reason take one line


@command
def index(
    folder: Annotated[
        Path, typer.Argument(help="Folder of photos, subfolders included.", show_default=False, metavar="FOLDER")
    ],
    library: Annotated[
        Path, typer.Option("--out", "-o", help="Library folder to create or update.", show_default=False)
    ],
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit", help="How photos become square: squash, crop or pad. [default: the library's, or squash]"
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove photos that no longer exist of other and of empty folders.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Names or paths to pass over: *.gif, 2019/*. Repeatable.", metavar="PATTERN"),
    ] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode a folder of photos into a library for searching.

    Run it again after photos were added, changed or removed. A stopped run resumes.

    Examples:

    \b
        pops index photos -o photos.library
        pops search "scene(teapot.png, beach.png)" --library photos.library
        pops run "texturing(teapot.png, tiger.png)" --renderer retrieval --library photos.library -n 4 -o near.png
    """
    import pops
    from pops.library import index_folder

    p = pops.load(model, device=device)
    side = p.model.photo_side
    with progress(quiet=quiet or json_output) as on_progress:
        report = index_folder(
            folder, library, p.space, fit=fit, side=side, prune=prune, exclude=exclude or (), on_progress=on_progress
        )
    if json_output:
        print_json({"ok": True, **_report_data(report)})
        return
    if not quiet:
        _list_skipped(report)
        typer.echo(_summary(report))


@command
def search(
    expression: Annotated[
        str, typer.Argument(help="An expression or a tree file (.yaml, .json).", show_default=False, metavar="EXPR")
    ],
    library: Annotated[
        Path, typer.Option("--library", "-l", help="Library made by pops index.", show_default=False, metavar="LIBRARY")
    ],
    count: Annotated[int, typer.Option("--count", "-k", help="Number of photos.", min=1, max=10_000)] = 10,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the operators.", min=0)] = 0,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Sampling steps of every operator.", min=1, max=1000)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Guidance scale of every operator.", min=0)
    ] = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the photos of a library nearest to an expression.

    Prints the score (cosine similarity) and the path of each.

    Examples:

    \b
        pops search "texturing(teapot.png, tiger.png)" --library photos.library
        pops search "scene(dog.png, beach.png)" -l photos.library -k 3 --json
        pops search 'text("a marble rabbit")' -l photos.library
    """
    import pops
    from pops.library import Library
    from pops.recipe import Recipe

    recipe = Recipe.read(expression).changed(seed=seed, steps=steps, guidance=guidance)
    opened = Library.open(library)
    p = pops.load(model, device=device)
    opened.require_encoder(p.space)
    notes: list[str] = []
    with progress(quiet=quiet or json_output) as on_progress:
        making = recipe.making
        trace = p.trace(
            recipe.expression, seed=seed, steps=making.steps, guidance=making.guidance, sampler=making.sampler,
            fit=making.fit, on_progress=on_progress, on_note=notes.append,
        )  # fmt: skip
    matches = opened.search(trace.result, count)[0]
    for line in dict.fromkeys(notes):
        typer.echo(f"pops: {line}", err=True)
    if json_output:
        found = [{**asdict(m), "there": Path(m.path).is_file()} for m in matches]
        data: dict[str, Any] = {"ok": True, "expression": recipe.expression, "library": str(library), "matches": found}
        warnings = [caution.to_data() for caution in trace.unfamiliar.values()]
        print_json({**data, "warnings": warnings} if warnings else data)
        return
    for m in matches:
        gone = "" if Path(m.path).is_file() else "  (no longer there)"
        typer.echo(f"{m.score:.4f}  {m.path}{gone}")


def _report_data(report: Report) -> dict[str, Any]:
    """Returns the report for --json."""
    listed = {
        name: [{"path": path, "reason": why} for path, why in getattr(report, name).items()]
        for name in ("skipped", "others")
    }
    return {**asdict(report), **listed}


def _list_skipped(report: Report) -> None:
    """Prints the skipped files, those of one reason in one line if they are many, at most LISTED lines."""
    alike: dict[str, list[str]] = {}
    for path, why in report.skipped.items():
        alike.setdefault(why, []).append(path)
    lines: list[str] = []
    more = 0
    for why, paths in alike.items():
        grouped = [f"{len(paths)} files, such as {shown(paths[0])}: {why}"] if len(paths) > ALIKE else None
        for line in grouped or [f"{shown(path)} {why}" for path in paths]:
            if len(lines) < LISTED:
                lines.append(line)
            else:
                more += len(paths) if grouped else 1
    for line in lines:
        typer.echo(f"pops: {line}", err=True)
    if report.kept:
        kept = f"{report.kept} photos are gone from folders that are now empty; they were kept"
        typer.echo(f"pops: {kept}. Is a disk not mounted? To remove them, add --prune", err=True)
    if more:
        typer.echo(f"pops: {more} more files were skipped; --json lists all", err=True)


def _summary(report: Report) -> str:
    """Returns one line: what the library holds and what changed."""
    counts = {
        "new": report.new,
        "changed": report.changed,
        "removed": report.removed,
        "skipped": len(report.skipped),
        "of other kinds": len(report.others),
    }
    changes = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing changed"
    return f"{report.library}: {report.photos} photos ({changes})"
