"""The options of commands that can share their work by Ray, and what they then use: encoders and makers of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pops.errors import ensure

if TYPE_CHECKING:
    from pops.data.fleet import FleetEncoder
    from pops.models.model import Model
    from pops.progress import OnProgress
    from pops.recipe import Loading, Recipe
    from pops.result import Result
    from pops.space import Space
    from pops.studio import Pops

RayOption = Annotated[
    str | None,
    typer.Option("--ray", help="Share the work on a Ray cluster: local, or host:port.", show_default=False),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Workers on Ray.", min=1, show_default="one for each CPU or GPU")
]


@contextmanager
def encoder(p: Pops, ray: str | None, workers: int | None) -> Iterator[Space | FleetEncoder]:
    """Yields what encodes images: the model's own encoder, or workers on Ray that each have one."""
    if ray is None:
        ensure(workers is None, "--workers is of --ray; add --ray local, or leave it out")
        yield p.space
        return
    from functools import partial

    from pops.data.fleet import FleetEncoder

    fleet = FleetEncoder(p.space, partial(_space, p.model.loading), ray, workers=workers, gpus=_gpus(p.model))
    try:
        yield fleet
    finally:
        fleet.close()


def _space(loading: Loading) -> Space:
    """Makes a worker's encoder."""
    from pops.models.model import Model

    return Model(loading).space


def _gpus(model: Model) -> float:
    return 1.0 if model.device.startswith("cuda") else 0.0


def images_over_ray(
    pops: Pops,
    recipe: Recipe,
    given: Mapping[str, object],
    only: Collection[int] | None,
    address: str,
    workers: int | None,
    on_progress: OnProgress | None,
    on_note: Callable[[str], None],
) -> Iterator[Result]:
    """Yields what `Pops.stream` does, but for traces: each part is made by one of many workers, which read the photos.

    only: numbers of the images to make; None for all. MissingExtra and ConfigError as in `Cluster`.
    """
    from functools import partial

    from pops.fleet import Cluster

    # 1) The parts that are wanted; workers take the same.
    rows = pops.runner.rows(recipe, pops.plan(recipe.expression), given)
    asked = set(recipe.numbers(rows)) if only is None else set(recipe.numbers(rows)) & set(only)
    parts = [sorted(asked & set(part.numbers)) for part in pops.runner.parts(recipe, rows)]
    tasks = [(recipe, dict(given), numbers) for numbers in parts if numbers]
    if not tasks:
        return

    # 2) Each worker loads the model once.
    done = 0
    make = partial(Maker, pops.model.loading, Path.cwd())
    with Cluster(address, workers=workers, gpus=_gpus(pops.model)).start(make, at_most=len(tasks)) as fleet:
        for results in fleet.map("make", tasks):
            for result in results:
                for line in result.notes:
                    on_note(line)
                done += len(result)
                if on_progress:
                    on_progress(done, len(asked), "images")
                yield result


class Maker:
    """A worker's model, and the images that it is asked for. folder: from which the recipes' paths are read."""

    def __init__(self, loading: Loading, folder: Path) -> None:
        from pops.models.model import Model
        from pops.studio import Pops

        os.chdir(folder)
        self.pops = Pops(Model(loading))

    def make(self, recipe: Recipe, given: dict[str, object], numbers: list[int]) -> list[Result]:
        """Makes the images of these numbers."""
        from dataclasses import replace

        return [replace(result, trace=None) for result in self.pops.stream(recipe, given=given, only=numbers)]
