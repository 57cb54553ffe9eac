"""pops data: checks, makes and encodes folders of examples, from which operators are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Device, Json, ModelName, Quiet, command, print_json, progress

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
    """
    import pops
    from pops.data.encode import encode_folder
    from pops.data.folder import Folder

    read = Folder.read(folder)
    p = pops.load(model, device=device)
    side = p.model.photo_side
    with progress(quiet=quiet or json_output) as on_progress:
        done = encode_folder(
            read, out, p.space, model=p.model.name, fit=fit, side=side, crops=crops, rows=rows, on_progress=on_progress
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
