"""Runs a recipe and writes its files: shared by `pops run` and `pops mix`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from pops.cli.shell import print_json, progress
from pops.errors import ensure
from pops.files import check_place, expanded

if TYPE_CHECKING:
    from pops.expression.plan import Plan
    from pops.progress import OnControl
    from pops.recipe import Recipe
    from pops.render.base import Control
    from pops.result import Result
    from pops.studio import Pops


FIGURES: tuple[Literal["tree"], Literal["equation"]] = ("tree", "equation")


@dataclass(frozen=True)
class Outputs:
    """The files that a command writes; None for each that it does not."""

    out: Path | None = None  # the images
    tree: Path | None = None
    equation: Path | None = None
    embedding: Path | None = None
    latent: Path | None = None
    control: Path | None = None
    recipe: bool = True  # write it into images

    def images(self) -> list[Path]:
        """Returns the paths of the images and figures as they were given."""
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
    """Runs a recipe, writes the outputs and prints their paths, or one JSON object.

    given: the values of operands that text cannot express, by `$key`.
    """
    # 1) Check every output path before anything is computed.
    start = time.monotonic()
    paths = check_outputs(outputs, recipe, pops.plan(recipe.expression))

    # 2) Run the recipe.
    notes: list[str] = []
    with progress(quiet=quiet or json_output) as on_progress:
        result = pops.run(
            recipe,
            given=given,
            figures=[name for name in FIGURES if getattr(outputs, name)],
            render=outputs.out is not None,
            embed=outputs.embedding is not None,
            on_progress=on_progress,
            on_control=_control_writer(outputs.control, recipe.rendering.control),
            on_note=notes.append,
        )

    # 3) Write the files, print notes and paths.
    written = _write(pops, result, outputs, paths)
    for line in dict.fromkeys(notes):
        typer.echo(f"pops: {line}", err=True)
    others = {"embedding": outputs.embedding, "tree": outputs.tree, "equation": outputs.equation}
    if json_output:
        data: dict[str, object] = {"ok": True, "outputs": [str(path) for path in written]}
        data |= {name: str(path) for name, path in others.items() if path}
        if outputs.latent:
            data["latents"] = [str(path) for path in _numbered(outputs.latent, len(result.latents))]
        data |= {"expression": recipe.expression, "seeds": list(recipe.seeds), "model": pops.name}
        found = [
            {"output": str(p), **i.info["pops"]["found"]} for p, i in zip(written, result) if "found" in i.info["pops"]
        ]
        data |= {"found": found} if found else {}
        data |= {"warnings": [caution.to_data() for caution in result.warnings]} if result.warnings else {}
        print_json({**data, "seconds": round(time.monotonic() - start, 3)})
    elif not quiet:
        latents = _numbered(outputs.latent, len(result.latents)) if outputs.latent else []
        for path in [*written, *latents, *filter(None, others.values())]:
            typer.echo(str(path))


def check_outputs(outputs: Outputs, recipe: Recipe, plan: Plan) -> list[Path]:
    """Returns the paths of the images; raises ConfigError for an output that cannot or must not be written.

    Two outputs of one name and outputs that would overwrite an operand are refused, too.
    """
    from pops.embedding import WRITTEN_SUFFIXES
    from pops.images import PICTURE_SUFFIXES

    wanted = [*outputs.images(), *(path for path in (outputs.embedding, outputs.latent) if path)]
    ensure(bool(wanted), "no output given; add -o out.png (or --save-embedding, --tree, --equation)")
    controlled = not outputs.control or bool(outputs.out and recipe.rendering.control)
    ensure(controlled, "--save-control goes with --control and -o; add them")
    for path in outputs.images():
        fits = path.suffix.lower() in PICTURE_SUFFIXES
        ensure(fits, f"{path}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings")
    ensure(
        outputs.embedding is None or outputs.embedding.suffix.lower() in WRITTEN_SUFFIXES,
        f"--save-embedding writes {', '.join(WRITTEN_SUFFIXES)}, got {outputs.embedding}; change the suffix",
    )
    if outputs.latent:
        ensure(not recipe.sweep, "a grid has no latent of its own; remove --save-latent or --sweep")
        fits = outputs.latent.suffix.lower() == ".safetensors"
        ensure(fits, f"--save-latent {outputs.latent}: a latent file ends in .safetensors; change the suffix")
    drawing = bool(outputs.tree or outputs.equation or outputs.embedding)
    ensure(not (recipe.sweep and drawing), "a grid has no tree, equation or embedding; take them of a single mix")

    # One path per image and latent, of control images one per kind; rows may come from a saved embedding.
    rows = max([len(recipe.seeds), *(_rows(node.path) for node in plan.saved)])
    count = 1 if recipe.image is not None or recipe.shows != "image" else rows * recipe.num_images
    images = _numbered(outputs.out, count) if outputs.out else []
    latents = _numbered(outputs.latent, count) if outputs.latent else []
    controls = list(_control_paths(outputs.control, recipe.rendering.control).values())
    others = (outputs.tree, outputs.equation, outputs.embedding)
    paths = [*images, *latents, *controls, *(path for path in others if path)]
    for path in paths:
        check_place(path)
    resolved = [path.resolve() for path in paths]
    ensure(len(set(resolved)) == len(resolved), "two outputs have the same name; give each its own")

    # No output on top of what the recipe reads.
    read = [*(node.path for node in plan.photos), *(node.path for node in plan.saved)]
    read += [source.removeprefix("map:") for source in recipe.rendering.control.values()]
    read += [*recipe.loading.operators.values(), *filter(None, [recipe.loading.adapter])]
    inputs = {expanded(path).resolve() for path in read}
    for target, path in zip(resolved, paths, strict=True):
        ensure(target not in inputs, f"{path} is an operand of the expression; write to another file")
    return images


def _rows(path: str) -> int:
    """Returns how many vectors a saved embedding has; 1 for a latent."""
    from pops.embedding import Embedding
    from pops.magicmix.latents import is_latent

    return 1 if is_latent(path) else Embedding.load(path).n


def _write(pops: Pops, result: Result, outputs: Outputs, paths: Sequence[Path]) -> list[Path]:
    """Writes every image, figure, embedding and latent; returns the paths of the images."""
    from pops.images import save_picture

    for path, image in zip(paths, result if paths else (), strict=True):
        save_picture(image, path, image.info["pops"] if outputs.recipe else None)
    for name, figure in result.figures.items():
        figure_path: Path | None = getattr(outputs, name)
        if figure_path:
            save_picture(figure, figure_path, figure.info["pops"] if outputs.recipe else None)
    if outputs.embedding and result.trace:
        result.trace.result.save(outputs.embedding)
    if outputs.latent:
        mixer = pops.mixer(result.recipe.loading.renderer)
        for path, latent in zip(_numbered(outputs.latent, len(result.latents)), result.latents, strict=True):
            mixer.save_latent(latent, path, result.recipe.to_data())
    return list(paths)


def _control_paths(path: Path | None, kinds: Collection[str]) -> dict[str, Path]:
    """Returns the path of each kind's control image; of several each has its kind in the name."""
    if path is None:
        return {}
    several = len(kinds) > 1
    return {kind: path.with_name(f"{path.stem}-{kind}{path.suffix}") if several else path for kind in kinds}


def _control_writer(path: Path | None, kinds: Collection[str]) -> OnControl | None:
    """Returns the callback that writes control images."""
    if path is None:
        return None
    from pops.images import save_picture

    paths = _control_paths(path, kinds)

    def write(control: Control) -> None:
        save_picture(control.image, paths[control.kind])

    return write


def _numbered(path: Path, count: int) -> list[Path]:
    """Returns the paths of several files; imports pops.result on use."""
    from pops.result import numbered

    return numbered(path, count)
