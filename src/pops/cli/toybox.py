"""pops toybox: renders images of the procedural world on which `tiny` was trained."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Json, Quiet, command, print_json
from pops.errors import PhotoError, UserError, ensure


@command
def toybox(
    caption: Annotated[
        str | None, typer.Argument(help="What to draw: an object, a material, a scene.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Image to write.", show_default=False)] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of what the caption leaves open.", min=0)] = 0,
    size: Annotated[int, typer.Option("--size", help="Side in pixels, an even number.", min=16, max=2048)] = 256,
    contact_sheet: Annotated[
        Path | None,
        typer.Option("--contact-sheet", help="Write an overview of every object, material and scene."),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Render a caption in the toybox, a procedural world.

    Examples:

    \b
        pops toybox "a tiger teapot on a beach" -o out.png
        pops toybox "a golden rabbit" --seed 7 --size 512 -o rabbit.png
        pops toybox --contact-sheet sheet.png
    """
    ensure(out is not None or contact_sheet is not None, "no output given; add -o out.png or --contact-sheet sheet.png")
    ensure(out is None or bool(caption), 'no caption given; add one such as "a tiger teapot on a beach"')
    ensure(size % 2 == 0, f"--size must be even, got {size}")
    from pops.images import PICTURE_SUFFIXES, save_picture

    for path in filter(None, (out, contact_sheet)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise PhotoError(f"{path}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings")
    from pops.toybox import draw, words

    written: list[Path] = []
    spec = None
    if out is not None:
        try:
            spec = words.parse_caption(caption or "", seed)
        except words.CaptionError as e:
            raise UserError(str(e)) from e
        save_picture(draw.render(spec, size=size), out)
        written.append(out)
    if contact_sheet is not None:
        sheet = import_module("pops.toybox").contact_sheet()
        save_picture(sheet, contact_sheet)
        written.append(contact_sheet)
    if json_output:
        import json

        scene = json.loads(spec.to_json()) if spec is not None else None
        print_json({"ok": True, "outputs": [str(p) for p in written], "seed": seed, "size": size, "scene": scene})
    elif not quiet:
        for path in written:
            typer.echo(str(path))
