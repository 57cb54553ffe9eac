"""Runs a recipe and writes its files: shared by `pops run` and `pops mix`.

Every image is written, and its path printed, as soon as it is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pops.cli.outputs import Outputs, Places, place_outputs
from pops.cli.shell import print_json, progress

if TYPE_CHECKING:
    from pops.caution import Caution
    from pops.embedding import Embedding
    from pops.progress import OnControl, OnProgress
    from pops.recipe import Recipe
    from pops.render.base import Control
    from pops.result import Result
    from pops.studio import Pops


def make(
    pops: Pops,
    recipe: Recipe,
    outputs: Outputs,
    *,
    given: dict[str, object] | None = None,
    json_output: bool = False,
    quiet: bool = False,
) -> None:
    """Runs a recipe, writes the outputs and prints their paths, or one JSON object.

    given: the values of operands that text cannot express, by `$key`.
    """
    # 1) Check every output path before anything is computed.
    start = time.monotonic()
    places = place_outputs(pops, recipe, outputs, given or {})

    # 2) Run the recipe and write each image.
    notes: list[str] = []
    writer = Writer(pops, outputs, places, tell=None if json_output or quiet else typer.echo)
    with progress(quiet=quiet or json_output) as on_progress:
        for result in _results(pops, recipe, outputs, places, given, writer.control(), on_progress, notes):
            writer.write(result)
    writer.finish()

    # 3) Notes, and the JSON object.
    for line in dict.fromkeys(notes):
        typer.echo(f"pops: {line}", err=True)
    if places.standing and not quiet:
        typer.echo(f"pops: {len(places.standing)} of {len(places.images)} images stood there and were kept", err=True)
    if json_output:
        data: dict[str, object] = {"ok": True, "outputs": [str(path) for path in writer.images]}
        if outputs.resume:
            data["kept"] = [str(places.images[number]) for number in sorted(places.standing)]
        data |= {name: str(path) for name, path in places.figures.items()}
        data |= {"embedding": str(places.embedding)} if places.embedding else {}
        data |= {"latents": [str(path) for path in writer.latents]} if outputs.latent else {}
        data |= {"expression": recipe.expression, "seeds": list(recipe.seeds), "model": pops.name}
        data |= {"found": writer.found} if writer.found else {}
        data |= {"warnings": [caution.to_data() for caution in writer.warnings]} if writer.warnings else {}
        print_json({**data, "seconds": round(time.monotonic() - start, 3)})


def _results(
    pops: Pops,
    recipe: Recipe,
    outputs: Outputs,
    places: Places,
    given: dict[str, object] | None,
    on_control: OnControl | None,
    on_progress: OnProgress | None,
    notes: list[str],
) -> Iterator[Result]:
    """The results of a run, part by part; of a grid over settings the one that there is."""
    if recipe.sweep:
        yield pops.run(recipe, given=given, on_progress=on_progress, on_note=notes.append)
        return
    if outputs.ray is not None:
        from pops.cli.fleet import images_over_ray

        yield from images_over_ray(
            pops, recipe, given or {}, places.only, outputs.ray, outputs.workers, on_progress, notes.append
        )
        return
    yield from pops.stream(
        recipe,
        given=given,
        figures=[name for name in outputs.figures() if name in places.figures],
        render=outputs.out is not None,
        embed=places.embedding is not None,
        only=places.only,
        on_progress=on_progress,
        on_control=on_control,
        on_note=notes.append,
    )


class Writer:
    """Writes what comes of a run, part by part.

    tell: is given every path that was written; None: nobody is.
    """

    def __init__(self, pops: Pops, outputs: Outputs, places: Places, tell: Callable[[str], None] | None) -> None:
        self.pops, self.outputs, self.places, self.tell = pops, outputs, places, tell
        self.images: list[Path] = []  # that were written
        self.latents: list[Path] = []
        self.found: list[dict[str, Any]] = []  # by the renderer "retrieval"
        self.warnings: dict[Caution, None] = {}  # each once
        self.embeddings: list[Embedding] = []
        self.recipe: Recipe | None = None  # of the whole run

    def write(self, result: Result) -> None:
        """Writes the images, latents and figures of a part, and keeps its rows of the embedding."""
        from pops.images import save_picture

        numbers = result.numbers or range(len(result))
        for i, (number, image) in enumerate(zip(numbers, result, strict=True)):
            if number in self.places.standing or number not in self.places.images:
                continue
            path = self.places.images[number]
            save_picture(image, path, image.info["pops"] if self.outputs.recipe else None)
            if "found" in image.info["pops"]:
                self.found.append({"output": str(path), **image.info["pops"]["found"]})
            self._done(path, self.images)
            if result.latents and number in self.places.latents:
                self._latent(result, i, self.places.latents[number])
        for name, figure in result.figures.items():
            if name in self.places.figures:
                path = self.places.figures[name]
                save_picture(figure, path, figure.info["pops"] if self.outputs.recipe else None)
                self._done(path)
        self.warnings |= dict.fromkeys(result.warnings)
        trace, self.recipe = result.trace, result.recipe
        if self.places.embedding and trace and trace.embedding and (trace.part is None or trace.part.first):
            self.embeddings.append(trace.embedding)

    def finish(self) -> None:
        """Writes the embedding, whose rows are those of all parts."""
        if self.places.embedding and self.recipe:
            from pops.embedding import Embedding
            from pops.runner import described

            described(Embedding.cat(self.embeddings), self.recipe).save(self.places.embedding)
            self._done(self.places.embedding)

    def control(self) -> OnControl | None:
        """Returns what writes control images; None where none are wanted."""
        if not self.places.controls:
            return None
        from pops.images import save_picture

        def write(control: Control) -> None:
            if control.kind in self.places.controls:
                save_picture(control.image, self.places.controls[control.kind])

        return write

    def _latent(self, result: Result, i: int, path: Path) -> None:
        mixer = self.pops.mixer(result.recipe.loading.renderer)
        mixer.save_latent(result.latents[i], path, result.recipe.to_data())
        self._done(path, self.latents)

    def _done(self, path: Path, kind: list[Path] | None = None) -> None:
        if kind is not None:
            kind.append(path)
        if self.tell:
            self.tell(str(path))
