"""pops operators: the operators of a model, and what each one takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pops.cli.shell import Debug, Json, ModelName, command, print_json, print_table

if TYPE_CHECKING:
    from pops.operators.spec import OperatorSpec

app = typer.Typer(help="List the operators of a model, or show one.", no_args_is_help=True)


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
    name: Annotated[str, typer.Argument(help="The operator's name, such as texturing.", show_default=False)],
    model: ModelName = "tiny",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show one operator: its operands, defaults and training recipe.

    Examples:

    \b
        pops operators show texturing
    """
    from pops.studio import load

    spec = load(model).spec(name)
    if json_output:
        print_json(spec.to_json())
        return
    typer.echo(f"{_form(spec)}: {spec.summary}")
    for i, role in enumerate(spec.roles, start=1):
        more = " (repeatable)" if spec.repeat and i == len(spec.roles) else ""
        typer.echo(f"  operand {i}: {role.name}, {'a photo' if role.kind == 'image' else 'words'}{more}")
    typer.echo(f"  guidance {spec.guidance:g}, steps {spec.steps} by default; _ stands for a missing operand")


def _form(spec: OperatorSpec) -> str:
    """texturing(object, texture)"""
    return f"{spec.name}({', '.join(role.name for role in spec.roles)}{', ...' if spec.repeat else ''})"
