"""pops data: checks, makes and encodes folders of examples, from which operators are trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.fleet import RayOption, Workers, encoder
from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress
from pops.errors import ensure
from pops.files import check_place

if TYPE_CHECKING:
    from pops.data.check import Checked, Finding

LISTED = 8  # findings of a kind that are printed
app = typer.Typer(help="Check, make and encode examples for training.", no_args_is_help=True)
FolderOf = Annotated[
    Path, typer.Argument(help="Folder of pictures with metadata.jsonl.", show_default=False, metavar="FOLDER")
]


@app.command("encode")
@command
def encode(
    folder: FolderOf,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of shards to write.", show_default=False)],
    fit: Annotated[str, typer.Option("--fit", help="How pictures become square: squash, crop or pad.")] = "squash",
    crops: Annotated[
        int, typer.Option("--crops", help="Versions of each training example, operands cropped at random.", min=1)
    ] = 1,
    rows: Annotated[int, typer.Option("--rows", help="Rows of a shard.", min=1, max=10_000_000)] = 4096,
    ray: RayOption = None,
    workers: Workers = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode a folder of examples into shards of embeddings, which training reads.

    Run it again after the folder has grown or changed. A stopped run resumes.

    Examples:

    \b
        pops data encode examples -o examples.shards
        pops data encode examples -o examples.shards --model kandinsky-2-2 --crops 4
        pops data encode examples -o examples.shards --ray local --workers 2
    """
    import pops
    from pops.data.encode import encode_folder
    from pops.data.folder import Folder

    read = Folder.read(folder)
    p = pops.load(model, device=device)
    side = p.model.photo_side
    with progress(quiet=quiet or json_output) as on_progress, encoder(p, ray, workers) as by:
        done = encode_folder(
            read, out, by, model=p.model.name, fit=fit, side=side, crops=crops, rows=rows, on_progress=on_progress
        )
    about = done.about
    if json_output:
        print_json(
            {
                "ok": True, "shards": str(out), "space": about.space, "model": about.model, "counts": about.counts,
                "roles": [{"name": r.name, "kind": r.kind} for r in about.roles], "split": about.source["split"],
                "written": done.written, "pictures": done.pictures, "seconds": done.seconds,
            }
        )  # fmt: skip
    elif not quiet:
        drawn = " (split drawn by ids: the metadata name none)" if read.made_split else ""
        typer.echo(f"{out}: {_counts(about.counts)}{drawn}; {done.pictures} pictures encoded in {done.seconds:.1f} s")


def _counts(counts: dict[str, int]) -> str:
    """Returns numbers of examples by split as words."""
    return ", ".join(f"{n} {split}" for split, n in counts.items() if n)


@app.command("make")
@command
def make(
    operator: Annotated[
        str,
        typer.Argument(help="texturing, union, scene, instruct or clothes.", show_default=False, metavar="OPERATOR"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of examples to write.", show_default=False)],
    teacher: Annotated[str, typer.Option("--teacher", help="What makes them: toybox or diffusion.")] = "toybox",
    count: Annotated[int, typer.Option("--count", "-n", help="Number of items.", min=1)] = 200,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of all items.", min=0)] = 0,
    size: Annotated[int | None, typer.Option("--size", help="Side of the pictures in pixels.", min=16)] = None,
    tries: Annotated[int, typer.Option("--tries", help="Attempts at one item, where filters refuse some.", min=1)] = 20,
    tools: Annotated[
        list[str] | None,
        typer.Option("--tool", help="TOOL=FOLDER or hub id: a model in place of the teacher's own. Repeatable."),
    ] = None,
    ray: RayOption = None,
    workers: Workers = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="2/8: make the second of eight shares, beside others.", show_default=False),
    ] = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a folder of examples with a teacher: toybox draws exact ones, diffusion follows the published recipes.

    Each item has its own seed. A stopped run resumes, and a larger --count adds to what is there. Many machines make
    the same bytes as one.

    Examples:

    \b
        pops data make texturing -o examples --count 300
        pops data make union -o unions --teacher diffusion --count 10000 --device cuda
        pops data make scene -o scenes --teacher diffusion --tool detector=./owlv2
        pops data make union -o unions --count 10000 --ray local
        pops data make union -o unions --count 10000 --shard 2/4
    """
    from functools import partial

    from pops.cli.options import named_paths
    from pops.cli.outputs import shard_of
    from pops.data.make import make_examples
    from pops.data.teachers import teacher as teacher_of

    named = named_paths(tools or [], "--tool", "detector=FOLDER")
    load = partial(teacher_of, teacher, size=size, tools=named, device=device)
    chosen, part, source = load(), shard_of(shard), None
    if ray is not None:
        from pops.data.fleet import over_ray

        ensure(operator in chosen.operators, f"the teacher {teacher} makes no {operator!r}")
        gpus = 1.0 if teacher != "toybox" and device.startswith("cuda") else 0.0
        source = over_ray(ray, load, operator, seed, tries, workers=workers, gpus=gpus)
    with progress(quiet=quiet or json_output) as on_progress:
        made = make_examples(
            operator, out, chosen, count=count, seed=seed, tries=tries, shard=part, source=source,
            on_progress=on_progress,
        )  # fmt: skip
    if json_output:
        print_json(
            {
                "ok": True, "folder": str(out), "items": len(made.items), "examples": len(made.rows), "new": made.new,
                "failed": made.failed, "rejected": dict(made.rejected), "teacher": teacher, "seed": seed,
                "waiting": made.waiting,
            }
        )  # fmt: skip
    elif not quiet:
        refused = f"; filters refused {made.rejected.total()} attempts" if made.rejected else ""
        failed = f"; {made.failed} items failed" if made.failed else ""
        waits = f"; the folder is finished by the last of the parts {', '.join(made.waiting)}" if made.waiting else ""
        told = f"{out}: {len(made.rows)} examples of {len(made.items)} items, {made.new} new{refused}{failed}{waits}"
        typer.echo(told)


@app.command("check")
@command
def check(
    folder: FolderOf,
    report: Annotated[
        Path | None, typer.Option("--report", "-o", help="Page to write, with thumbnails.", metavar="REPORT.html")
    ] = None,
    roles: Annotated[
        str | None, typer.Option("--roles", help="Names that the operator's roles must have: object,texture.")
    ] = None,
    model: ModelName = "tiny",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check a folder of examples: every picture, every row, and what the splits share.

    The exit code is 1 if there are faults. Notes are worth a look and do not count.

    Examples:

    \b
        pops data check examples
        pops data check examples --report report.html --roles object,texture
    """
    import pops
    from pops.data.check import check_folder, require_roles
    from pops.data.folder import Folder
    from pops.data.report import write_report

    Folder.read(folder, strict=False)  # what is no folder of examples is told before a model is read
    wanted = None if roles is None else require_roles(roles)
    if report is not None:
        check_place(report)
    space = pops.load(model, device="cpu").space
    with progress(quiet=quiet or json_output) as on_progress:
        checked = check_folder(folder, too_long=space.too_long, roles=wanted, on_progress=on_progress)
    if report is not None:
        write_report(checked, report)
    if json_output:
        print_json(_checked_data(checked, report))
    elif not quiet:
        _print_checked(checked, report)
    if checked.faults:
        raise typer.Exit(1)


def _checked_data(checked: Checked, report: Path | None) -> dict[str, Any]:
    """Returns what was found for --json."""

    def plain(finding: Finding) -> dict[str, Any]:
        pictures = [str(path) for path in finding.pictures]
        return {"kind": finding.kind, "where": finding.where, "what": finding.what, "pictures": pictures}

    folder = checked.folder
    return {
        "ok": not checked.faults,
        "folder": str(folder.path),
        "examples": len(folder),
        "pictures": checked.pictures,
        "roles": [{"name": role.name, "kind": role.kind} for role in folder.roles],
        "counts": folder.counts,
        "split": "drawn" if folder.made_split else "given",
        "found": checked.counts,
        "faults": [plain(finding) for finding in checked.faults],
        "notes": [plain(finding) for finding in checked.notes],
        "report": None if report is None else str(report),
    }


def _print_checked(checked: Checked, report: Path | None) -> None:
    """Prints what was found, at most LISTED lines of a kind."""
    from pops.data.check import KINDS
    from pops.data.report import verdict

    for kind, title in KINDS.items():
        own = [finding for finding in checked.findings if finding.kind == kind]
        if own:
            typer.echo(f"{'fault' if own[0].fault else 'note'}: {title} ({len(own)})")
            for finding in own[:LISTED]:
                typer.echo(f"  {finding}")
            if len(own) > LISTED:
                typer.echo(f"  and {len(own) - LISTED} more; --json lists all")
    folder = checked.folder
    roles = ", ".join(role.name if role.kind == "image" else f"{role.name} (text)" for role in folder.roles)
    drawn = " (split drawn by ids: the metadata name none)" if folder.made_split and len(folder) else ""
    typer.echo(f"{folder.path}: {_counts(folder.counts) or 'no examples'}{drawn}; roles {roles or 'none'}")
    typer.echo(verdict(checked) + (f"; the report is in {report}" if report is not None else ""))
