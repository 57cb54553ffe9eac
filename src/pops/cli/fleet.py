"""The options of commands that can share their work by Ray, and the image encoder that they then use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pops.errors import ensure

if TYPE_CHECKING:
    from pops.data.fleet import FleetEncoder
    from pops.recipe import Loading
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

    gpus = 1.0 if p.model.device.startswith("cuda") else 0.0
    fleet = FleetEncoder(p.space, partial(_space, p.model.loading), ray, workers=workers, gpus=gpus)
    try:
        yield fleet
    finally:
        fleet.close()


def _space(loading: Loading) -> Space:
    """Makes a worker's encoder."""
    from pops.models.model import Model

    return Model(loading).space
