"""pops operators: lists the operators of a model, shows one, imports and downloads official checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pops.cli.shell import Debug, Json, ModelName, command, print_json, print_table

if TYPE_CHECKING:
    from pops.operators.spec import OperatorSpec

app = typer.Typer(help="List operators, show one, import or download official ones.", no_args_is_help=True)


@app.command("list")
@command
def list_operators(model: ModelName = "tiny", json_output: Json = False, debug: Debug = False) -> None:
    """List the operators of a model.

    Examples:

    \b
        pops operators list
        pops operators list --model kandinsky-2-2 --json
    """
    from pops.studio import load

    specs = load(model).operators
    if json_output:
        print_json({"model": model, "operators": {name: spec.to_json() for name, spec in specs.items()}})
        return
    rows = [(_form(s), f"{s.guidance:g}", s.steps, s.summary) for s in specs.values()]
    print_table(("operator", "guidance", "steps", "result"), rows)


@app.command("show")
@command
def show_operator(
    name: Annotated[str, typer.Argument(help="Operator name, such as texturing.", show_default=False)],
    model: ModelName = "tiny",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show one operator: its operands and defaults.

    Examples:

    \b
        pops operators show texturing
    """
    from pops.studio import load

    spec = load(model).model.spec(name)
    if json_output:
        print_json(spec.to_json())
        return
    typer.echo(f"{_form(spec)}: {spec.summary}")
    for i, role in enumerate(spec.roles, start=1):
        more = " (repeatable)" if spec.repeat and i == len(spec.roles) else ""
        typer.echo(f"  operand {i}: {role.name}, {'a photo' if role.kind == 'image' else 'a text'}{more}")
    whole, partial = spec.defaults(missing=False), spec.defaults(missing=True)
    typer.echo(f"  guidance {whole[1]:g}, steps {whole[0]} by default; _ stands for a missing operand")
    if partial != whole:
        typer.echo(f"  with a missing operand: guidance {partial[1]:g}, steps {partial[0]}")


@app.command("import")
@command
def import_operator(
    file: Annotated[Path, typer.Argument(help="Official checkpoint, such as learned_prior.pth.", show_default=False)],
    name: Annotated[
        str, typer.Option("--as", help="Name of the operator that it holds, such as texturing.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Operator folder to write.", show_default=False)],
    model: ModelName = "tiny",
    force: Annotated[bool, typer.Option("--force", help="Replace an operator in that folder.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Convert an official checkpoint to an operator folder for a model.

    The weights keep their precision. The file is read in a separate process and cannot run code.

    Examples:

    \b
        pops operators import learned_prior.pth --as texturing --model kandinsky-2-2 -o texturing
        pops operators import learned_prior.pth --as scene --model FOLDER -o FOLDER/operators/scene
    """
    from pops.operators.official import check_import, import_official
    from pops.studio import load

    check_import(file, name, out, force=force)
    pops = load(model, device="cpu")
    folder = import_official(file, name, out, base=pops.model.prior, space=pops.space.id, force=force)
    if json_output:
        print_json({"ok": True, "operator": name, "folder": str(folder), "model": model})
        return
    typer.echo(str(folder))


@app.command("pull")
@command
def pull_operators(
    names: Annotated[list[str] | None, typer.Argument(help="Operators to download; all unless given.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model that they belong to.")] = "kandinsky-2-2",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Download official operators from the hub, about 4 GB each. A stopped download resumes.

    Examples:

    \b
        pops operators pull texturing
        pops operators pull texturing scene union instruct
    """
    from pops.models.hub import PUBLISHED, pull_operators

    files = pull_operators(names or PUBLISHED, model)
    if json_output:
        print_json({"ok": True, "operators": {name: str(path) for name, path in files.items()}})
        return
    for path in files.values():
        typer.echo(str(path))


def _form(spec: OperatorSpec) -> str:
    """Returns the operator's signature: texturing(object, texture)."""
    return f"{spec.name}({', '.join(role.name for role in spec.roles)}{', ...' if spec.repeat else ''})"
