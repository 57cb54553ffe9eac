"""pops renderers: lists the installed renderers and what each can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.shell import Debug, Decoder, Device, Json, ModelName, command, print_json, print_table
from pops.errors import PopsError

if TYPE_CHECKING:
    from pops.studio import Pops


@command
def renderers(
    names: Annotated[
        list[str] | None, typer.Argument(help="List only these.", show_default=False, metavar="[NAME]...")
    ] = None,
    library: Annotated[str | None, typer.Option("--library", help="Library of photos, for retrieval.")] = None,
    decoder: Decoder = None,
    model: ModelName = "tiny",
    device: Device = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List the renderers and what each can do with a model.

    Other installed packages may add renderers to those of pops.

    Examples:

    \b
        pops renderers
        pops renderers --json
        pops renderers retrieval --library photos.library
    """
    import pops
    from pops.render import get
    from pops.render import names as installed

    for name in names or ():
        get(name)  # raises for an unknown name
    p = pops.load(model, decoder=decoder, device=device, library=library)
    own = p.model.files.renderer
    rows = [{"name": name, "from": _origin(name), **_capabilities(p, name)} for name in names or installed()]
    if json_output:
        print_json({"model": p.name, "folder": str(own) if own else None, "renderers": rows})
        return
    titles = ["name", "from", "space", "size", "controls", "text", "not ready"]
    print_table(titles, [[_shown(row, title) for title in titles] for row in rows])


def _capabilities(p: Pops, name: str) -> dict[str, object]:
    """Returns a renderer's capabilities, or why it cannot be used with this model."""
    try:
        found = p.renderer(name).capabilities
    except (PopsError, OSError) as e:
        return {"ready": False, "reason": (str(e).splitlines() or [type(e).__name__])[0]}
    return {"ready": True, **{k: getattr(found, k) for k in found.__dataclass_fields__}}


def _origin(name: str) -> str:
    """Returns the package that registers a renderer."""
    from importlib.metadata import entry_points

    from pops.render import GROUP

    packages = [e.dist.name for e in entry_points(group=GROUP, name=name) if e.dist]
    return packages[0] if packages else "pops-diffusion"


def _shown(row: dict[str, Any], title: str) -> str:
    """Returns the cell of a renderer's row under a title."""
    if title == "not ready":
        return str(row.get("reason", ""))
    if title == "size" and "native" in row:
        height, width = row["native"]
        return f"{height}x{width}" if height else "that of each photo"
    value = row.get(title, "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _joined(value)


def _joined(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, (list, tuple)) else str(value)
