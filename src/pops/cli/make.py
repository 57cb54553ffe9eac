"""From a recipe to files: what `pops run` and `pops mix` share. Checks places, runs, writes, tells."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from pops.cli.shell import print_json, progress
from pops.errors import ensure
from pops.files import check_place, expanded

if TYPE_CHECKING:
    from pops.expression.plan import Plan
    from pops.recipe import Recipe
    from pops.render.base import Control
    from pops.result import Result
    from pops.studio import Pops


FIGURES: tuple[Literal["tree"], Literal["equation"]] = ("tree", "equation")


@dataclass(frozen=True)
class Outputs:
    """The files that a command is to write; None: not asked for."""

    out: Path | None = None  # the pictures
    tree: Path | None = None
    equation: Path | None = None
    embedding: Path | None = None
    latent: Path | None = None
    control: Path | None = None
    recipe: bool = True  # whether pictures carry it

    def pictures(self) -> list[Path]:
        """The places of pictures."""
        return [path for path in (self.out, self.tree, self.equation, self.control) if path]


def make(
    pops: Pops,
    recipe: Recipe,
    outputs: Outputs,
    *,
    given: Mapping[str, object] | None = None,
    json_output: bool = False,
    quiet: bool = False,
) -> None:
    """Runs a recipe and writes what it makes; prints the paths, or one JSON object."""
    # 1) All that can be refused is refused before anything is computed.
    start = time.monotonic()
    places = check_outputs(outputs, recipe, pops.plan(recipe.expression))

    # 2) The images.
    told: list[str] = []
    with progress(quiet=quiet or json_output) as on_progress:
        result = pops.run(
            recipe,
            given=given,
            figures=[name for name in FIGURES if getattr(outputs, name)],
            render=outputs.out is not None,
            embed=outputs.embedding is not None,
            on_progress=on_progress,
            on_control=_keeper(outputs.control, len(recipe.rendering.control)),
            on_note=told.append,
        )

    # 3) The files, and what is told.
    written = _write(pops, result, outputs, places)
    for line in dict.fromkeys([*told, *_changed(recipe, result)]):
        typer.echo(f"pops: {line}", err=True)
    others = {"embedding": outputs.embedding, "tree": outputs.tree, "equation": outputs.equation}
    if json_output:
        data: dict[str, Any] = {"ok": True, "outputs": [str(path) for path in written]}
        data |= {name: str(path) for name, path in others.items() if path}
        if outputs.latent:
            data["latents"] = [str(path) for path in _numbered(outputs.latent, len(result.latents))]
        data |= {"expression": recipe.expression, "seeds": list(recipe.seeds), "model": pops.name}
        found = [{"output": str(p), **i.info["pops"]["found"]} for p, i in zip(written, result) if _found(i)]
        data |= {"found": found} if found else {}
        print_json({**data, "seconds": round(time.monotonic() - start, 3)})
    elif not quiet:
        latents = _numbered(outputs.latent, len(result.latents)) if outputs.latent else []
        for path in [*written, *latents, *filter(None, others.values())]:
            typer.echo(str(path))


def check_outputs(outputs: Outputs, recipe: Recipe, plan: Plan) -> list[Path]:
    """Refuses what cannot be written: no output at all, two of one name, an operand's place, no permission.

    Returns the places of the images.
    """
    from pops.embedding import WRITTEN_SUFFIXES
    from pops.images import PICTURE_SUFFIXES

    wanted = [*outputs.pictures(), *(path for path in (outputs.embedding, outputs.latent) if path)]
    ensure(bool(wanted), "say where the picture goes: -o out.png (or --save-embedding, --tree, --equation)")
    controlled = not outputs.control or bool(outputs.out and recipe.rendering.control)
    ensure(controlled, "--save-control goes with --control and -o")
    for picture in outputs.pictures():
        fits = picture.suffix.lower() in PICTURE_SUFFIXES
        ensure(fits, f"{picture}: pictures are written as {', '.join(PICTURE_SUFFIXES)}; name one of them")
    ensure(
        outputs.embedding is None or outputs.embedding.suffix.lower() in WRITTEN_SUFFIXES,
        f"--save-embedding writes {', '.join(WRITTEN_SUFFIXES)}, got {outputs.embedding}; change the suffix",
    )
    if outputs.latent:
        ensure(not recipe.sweep, "a grid has many latents; leave --save-latent out, or mix without --sweep")
        fits = outputs.latent.suffix.lower() == ".safetensors"
        ensure(fits, f"--save-latent {outputs.latent}: a latent's file ends in .safetensors")
    count = 1 if recipe.image is not None or recipe.shows != "image" else len(recipe.seeds) * recipe.num_images
    images = _numbered(outputs.out, count) if outputs.out else []
    latents = _numbered(outputs.latent, count) if outputs.latent else []
    others = (outputs.tree, outputs.equation, outputs.control, outputs.embedding)
    places = [*images, *latents, *(path for path in others if path)]
    for path in places:
        check_place(path)
    resolved = [path.resolve() for path in places]
    ensure(len(set(resolved)) == len(resolved), "two outputs have one name; give each its own")
    operands = [*(node.path for node in plan.photos), *(node.path for node in plan.saved)]
    operands += [source.removeprefix("map:") for source in recipe.rendering.control.values()]
    inputs = {expanded(path).resolve() for path in operands}
    for place, path in zip(resolved, places, strict=True):
        ensure(place not in inputs, f"{path} is an operand of the expression; write to another file")
    return images


def _write(pops: Pops, result: Result, outputs: Outputs, places: Sequence[Path]) -> list[Path]:
    """Writes every image, figure, embedding and latent; returns the places of the images."""
    from pops.images import save_picture

    for place, image in zip(places, result, strict=False):
        save_picture(image, place, image.info["pops"] if outputs.recipe else None)
    for name, figure in result.figures.items():
        path = getattr(outputs, name)
        if path:
            save_picture(figure, path, figure.info["pops"] if outputs.recipe else None)
    if outputs.embedding and result.trace:
        result.trace.result.save(outputs.embedding)
    if outputs.latent:
        mixer = pops.mixer(result.recipe.loading.renderer)
        for path, latent in zip(_numbered(outputs.latent, len(result.latents)), result.latents, strict=True):
            mixer.save_latent(latent, path, result.recipe.to_data())
    return list(places)


def _changed(recipe: Recipe, result: Result) -> list[str]:
    """A line for inputs that are not what they were when the recipe was made."""
    now = result.recipe.inputs
    changed = [path for path, digest in recipe.inputs.items() if now.get(path) != digest]
    return [f"{', '.join(changed)} changed since the recipe was made; the picture will differ"] if changed else []


def _found(image: Any) -> bool:
    return "found" in image.info["pops"]


def _keeper(path: Path | None, controls: int) -> Any:
    """What writes a control image; of several each with its kind in the name."""
    if path is None:
        return None
    from pops.images import save_picture

    def keep(control: Control) -> None:
        save_picture(
            control.image, path.with_name(f"{path.stem}-{control.kind}{path.suffix}") if controls > 1 else path
        )

    return keep


def _numbered(path: Path, count: int) -> list[Path]:
    from pops.result import numbered

    return numbered(path, count)
