"""pops models: lists the named models, shows one, downloads one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pops.cli.shell import Debug, Json, command, print_json, print_table

app = typer.Typer(help="List models, show one, download one.", no_args_is_help=True)


@app.command("list")
@command
def list_models(json_output: Json = False, debug: Debug = False) -> None:
    """List the named models, and whether each is on this machine.

    Examples:

    \b
        pops models list
    """
    from pops.models.hub import known

    rows: list[dict[str, Any]] = [dict(row) for row in known()]
    if json_output:
        print_json({"models": rows})
        return
    titles = list(rows[0])
    shown = [{**row, "here": "yes" if row["here"] else "no"} for row in rows]
    print_table(titles, [[row.get(t, "") for t in titles] for row in shown])


@app.command("show")
@command
def show_model(
    name: Annotated[str, typer.Argument(help="Model name, folder or hub id.", show_default=False)],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show one model: its folder, operators, renderer and sizes.

    Examples:

    \b
        pops models show tiny
    """
    from pops.models.hub import resolve

    files = resolve(name)
    weights = sum(f.stat().st_size for f in files.folder.rglob("*.safetensors"))
    data = {
        "name": files.name,
        "folder": str(files.folder),
        "operators": sorted(files.operators),
        "renderer": str(files.renderer) if files.renderer else None,
        "weights_mb": round(weights / 1e6, 1),
        **{k: v for k, v in files.info.items() if k not in ("name", "renderer", "operators")},
    }
    if json_output:
        print_json(data)
        return
    for key, value in data.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{key:<12}{shown if shown is not None else 'none'}")


@app.command("pull")
@command
def pull_model(
    name: Annotated[str, typer.Argument(help="Model name or hub id.", show_default=False)],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Download a model's prior and decoder from the hub, only the files that are needed. A stopped download resumes.

    Examples:

    \b
        pops models pull kandinsky-2-2
    """
    from pops.models.hub import pull

    folders = pull(name)
    if json_output:
        print_json({"ok": True, "model": name, "folders": [str(folder) for folder in folders]})
        return
    for folder in folders:
        typer.echo(str(folder))
