"""pops index: encodes a folder of photos into a library. pops search: finds the photos nearest to words or to an
expression.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.fleet import RayOption, Workers, encoder
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.files import expanded, is_file, shown

if TYPE_CHECKING:
    from pops.caution import Caution
    from pops.library import Report, Where

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
    ray: RayOption = None,
    workers: Workers = None,
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
        pops index photos -o photos.library --ray host:6379
        pops search "scene(teapot.png, beach.png)" --library photos.library
        pops run "texturing(teapot.png, tiger.png)" --renderer retrieval --library photos.library -n 4 -o near.png
    """
    import pops
    from pops.library import index_folder

    p = pops.load(model, device=device)
    side = p.model.photo_side
    with progress(quiet=quiet or json_output) as on_progress, encoder(p, ray, workers) as by:
        report = index_folder(
            folder, library, by, fit=fit, side=side, prune=prune, exclude=exclude or (), on_progress=on_progress
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
        str,
        typer.Argument(
            help="Plain words, an expression, a photo, or a tree file (.yaml, .json).",
            show_default=False,
            metavar="EXPR",
        ),
    ],
    library: Annotated[
        Path, typer.Option("--library", "-l", help="Library made by pops index.", show_default=False, metavar="LIBRARY")
    ],
    count: Annotated[int, typer.Option("--count", "-k", help="Number of photos.", min=1, max=10_000)] = 10,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            help="Only photos of this date and later: 2024-05-31, 2024-05 or 2024.",
            show_default=False,
            metavar="DATE",
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option("--until", help="Only photos until the end of this date.", show_default=False, metavar="DATE"),
    ] = "",
    under: Annotated[
        list[str] | None,
        typer.Option("--under", help="Only photos in this folder or below. Repeatable.", metavar="FOLDER"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Names or paths to leave out: *.gif, 2019/*. Repeatable.", metavar="PATTERN"),
    ] = None,
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
    """Find the photos of a library nearest to words or to an expression.

    Plain words are compared with the photos by CLIP's text encoder; text("...") draws an image's embedding from words
    first, by the prior. Prints the score (cosine similarity) and the path of each. A photo's date is its own (EXIF),
    else that of its file's last change.

    Examples:

    \b
        pops search "a red teapot" --library photos.library
        pops search "texturing(teapot.png, tiger.png)" --library photos.library
        pops search "scene(dog.png, beach.png)" -l photos.library -k 3 --json
        pops search dog -l photos.library --since 2024-05 --until 2024-08-15 --under photos/holidays
    """
    import pops
    from pops.expression.words import plain_words
    from pops.library import Library, Where
    from pops.recipe import Recipe

    where = Where(since, until, tuple(under or ()), tuple(exclude or ()))
    words = None if is_file(expanded(expression)) else plain_words(expression)
    recipe = None if words else Recipe.read(expression).changed(seed=seed, steps=steps, guidance=guidance)
    opened = Library.open(library)
    p = pops.load(model, device=device)
    opened.require_encoder(p.space)
    notes: list[str] = []
    with progress(quiet=quiet or json_output) as on_progress:
        cautions: list[Caution] = []
        if recipe is None:
            e = p.embed_words(words or "")
        else:
            making = recipe.making
            trace = p.trace(
                recipe.expression, seed=seed, steps=making.steps, guidance=making.guidance, sampler=making.sampler,
                fit=making.fit, on_progress=on_progress, on_note=notes.append,
            )  # fmt: skip
            e, cautions = trace.result, list(trace.unfamiliar.values())
    matches = opened.search(e, count, where)[0]
    method = opened.method(count)
    for line in dict.fromkeys(notes):
        typer.echo(f"pops: {line}", err=True)
    if json_output:
        found = [{**asdict(m), "there": Path(m.path).is_file()} for m in matches]
        asked = {"expression": expression if recipe is None else recipe.expression, "words": words}
        how = {"search": method.search, "settings": method.settings, "told": method.told}
        warned = {"warnings": [caution.to_data() for caution in cautions]} if cautions else {}
        print_json({"ok": True, **asked, "library": str(library), **how, "matches": found, **warned})
        return
    read = f"read as plain words; for the prior's image of them write text({json.dumps(words, ensure_ascii=False)})"
    none = "" if matches else f"no photo of {shown(library)} meets {_conditions(where)}"
    for line in filter(None, ("" if words is None or quiet else read, "" if quiet else method.told, none)):
        typer.echo(f"pops: {line}", err=True)
    for m in matches:
        gone = "" if Path(m.path).is_file() else "  (no longer there)"
        typer.echo(f"{m.score:.4f}  {m.path}{gone}")


def _conditions(where: Where) -> str:
    """Returns the conditions as they were asked for."""
    given = [f"--{name} {shown(value)}" for name, value in (("since", where.since), ("until", where.until)) if value]
    given += [f"--under {shown(folder)}" for folder in where.under]
    given += [f"--exclude {shown(pattern)}" for pattern in where.exclude]
    return " ".join(given)


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
