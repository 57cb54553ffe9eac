"""pops operators: lists the operators of a model, shows one, imports official checkpoints, shares on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pops.cli.shell import Debug, Json, ModelName, command, print_json, print_table
from pops.errors import ensure

if TYPE_CHECKING:
    from pops.operators.spec import OperatorSpec, Sampling

OFFICIAL = "kandinsky-2-2"  # the model of official operators
app = typer.Typer(help="List operators, show one, import official ones, share on the hub.", no_args_is_help=True)


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
    typer.echo(f"  {_settings(whole)} by default; _ stands for a missing operand")
    if partial != whole:
        typer.echo(f"  with a missing operand: {_settings(partial)}")


def _settings(own: Sampling) -> str:
    return f"guidance {own.guidance:g}, steps {own.steps}, strength {own.strength:g}"


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
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Official operators (all unless given), or a repo: user/repo.", metavar="[NAME...|USER/REPO]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Operator folder to write.", show_default="the repo's name")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of the repo.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Model that they belong to; a repo's operator is tried on it.", show_default=OFFICIAL
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an operator in that folder.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Download an operator that somebody shared on the hub, or official ones, about 4 GB each.

    Files that are here whole are not downloaded again. Every file is checked before it is taken. Private repos need
    `hf auth login` or HF_TOKEN.

    Examples:

    \b
        pops operators pull someone/gilded -o gilded
        pops operators pull someone/gilded --revision v2 --model tiny
        pops operators pull texturing scene union instruct
    """
    from pops.models.hub import PUBLISHED, pull_operators
    from pops.operators.sharing import is_repo

    shared = [name for name in names or () if is_repo(name)]
    if shared:
        _pull_shared(names or [], out, revision, model, force=force, json_output=json_output)
        return
    told = "--out, --revision and --force are for a repo (user/repo); official operators go to the hub's cache"
    ensure(out is None and revision is None and not force, told)
    files = pull_operators(names or PUBLISHED, model or OFFICIAL)
    if json_output:
        print_json({"ok": True, "operators": {name: str(path) for name, path in files.items()}})
        return
    for path in files.values():
        typer.echo(str(path))


def _pull_shared(
    names: list[str], out: Path | None, revision: str | None, model: str | None, *, force: bool, json_output: bool
) -> None:
    """Downloads one operator from its repo, and tries it on the model."""
    from pops.operators.checkpoint import load_operator, load_spec
    from pops.operators.sharing import copy_operator, fetch, pull
    from pops.studio import load

    ensure(len(names) == 1, f"one repo at a time, got {', '.join(names)}")
    repo = names[0]
    folder = out or Path(repo.rpartition("/")[2])
    if model is None:
        pull(repo, folder, revision=revision, force=force)
    else:
        p = load(model, device="cpu")
        fetched = fetch(repo, revision=revision)
        load_operator(fetched, p.model.prior, space=p.space.id)
        copy_operator(fetched, folder, force=force)
    if json_output:
        print_json({"ok": True, "operator": load_spec(folder).name, "folder": str(folder), "repo": repo})
        return
    typer.echo(str(folder))


@app.command("push")
@command
def push_operator(
    operator: Annotated[
        str,
        typer.Argument(help="Operator folder, a run of pops train, or an operator of the model.", show_default=False),
    ],
    repo: Annotated[str, typer.Argument(help="Repo of the hub: user/repo.", show_default=False, metavar="USER/REPO")],
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Figures for its page: what pops evaluate --json printed.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of examples that it was trained on, for its page.")
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option("--picture", help="Picture for its page. Repeatable.", show_default="the run's validation.png"),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence, as the hub names it: apache-2.0.", show_default=False)
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="Hub id of the model, for its page.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repo is private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to push to.", show_default="main")] = None,
    message: Annotated[str | None, typer.Option("--message", help="Message of the commit.", show_default=False)] = None,
    model: ModelName = "tiny",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Share an operator on the Hugging Face hub, with a page that says how good it is and what it learnt from.

    Log in with `hf auth login` first, or set HF_TOKEN. A push that was stopped changes nothing: run it again.

    Examples:

    \b
        pops evaluate gilded-operator --data gilded --json > figures.json
        pops operators push gilded-operator me/gilded --figures figures.json --data gilded --license cc0-1.0
        pops operators push texturing me/texturing --model FOLDER --private
    """
    from pops.data import Folder
    from pops.data.card import described
    from pops.files import expanded, read_json_object
    from pops.operators.checkpoint import SPEC_FILE
    from pops.operators.model_card import Card
    from pops.operators.sharing import push
    from pops.training.grids import GRID

    folder = expanded(operator)
    if not (folder / SPEC_FILE).is_file() and "/" not in operator:
        folder = _folder_of(operator, model)
    shown_pictures = pictures or [path for path in (folder / GRID,) if path.is_file()]
    read = None if figures is None else read_json_object(figures, advice="give what pops evaluate --json printed")
    text = "" if data is None else described(Folder.read(data))
    card = Card(read, text, tuple(shown_pictures), licence, base_model)
    address = push(folder, repo, card, private=private or None, revision=revision, message=message)
    if json_output:
        print_json({"ok": True, "repo": repo, "commit": address})
        return
    typer.echo(address)
    if licence is None:
        typer.echo("pops: it has no licence, so nobody may use it; add --license apache-2.0, for example", err=True)


def _folder_of(name: str, model: str) -> Path:
    """Returns the folder of an operator of a model."""
    from pops.operators.checkpoint import SPEC_FILE
    from pops.studio import load

    p = load(model, device="cpu")
    p.model.spec(name)
    folder = p.model.operator_folders[name]
    told = f"{name} is an official checkpoint; make a folder of it first: pops operators import"
    ensure((folder / SPEC_FILE).is_file(), told)
    return folder


def _form(spec: OperatorSpec) -> str:
    """Returns the operator's signature: texturing(object, texture)."""
    return f"{spec.name}({', '.join(role.name for role in spec.roles)}{', ...' if spec.repeat else ''})"
