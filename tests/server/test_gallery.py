"""The pictures that ship for the worked examples belong to their recipes, and to the tiny that ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import pops
from pops import examples
from pops.models.model import Model
from pops.recipe import Loading, Recipe
from pops.server.gallery import EXAMPLES, PICTURES, shipped
from pops.server.references import renamed

REMAKE = "run: python studio/gallery.py"


def test_every_example_has_the_picture_of_the_tiny_that_ships() -> None:
    version = Model(Loading(model="tiny")).version
    stale = [name for name, _, expression in EXAMPLES if shipped(name, expression, version) is None]
    assert not stale, REMAKE
    files = sorted(PICTURES.iterdir())
    assert [path.stem for path in files] == sorted(name for name, _, _ in EXAMPLES), REMAKE
    assert all(path.stat().st_size <= 30_000 for path in files)
    assert b"/" not in Recipe.from_png(files[0]).model_dump_json(exclude={"expression", "inputs"}).encode()


def test_a_picture_is_what_is_made() -> None:
    name, _, expression = EXAMPLES[3]
    home = f"{examples.folder()}/"
    (made,) = pops.load("tiny").run(renamed(Recipe(expression=expression), lambda file: home + file)).images
    with Image.open(PICTURES / f"{name}.webp") as kept:
        difference = np.abs(np.asarray(kept.convert("RGB"), float) - np.asarray(made.convert("RGB"), float))
    assert kept.size == made.size and difference.mean() < 2, REMAKE


def test_a_picture_of_another_model_or_expression_is_not_told(client: Callable[..., TestClient]) -> None:
    name, _, expression = EXAMPLES[0]
    assert shipped(name, expression, "0") is None
    assert shipped(name, "union(objects/dog.png, _)", Model(Loading(model="tiny")).version) is None
    one = client()
    told = one.get("/api/v1/gallery").json()["examples"]
    assert [row["picture"] for row in told] == [None] * 8  # the server's model is no tiny


def test_pictures_are_told_and_served(client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    one = client(models=(Loading(model="tiny"),))
    core = one.app.state.core  # type: ignore[attr-defined]
    core.lines["tiny"].version = core.models["tiny"].version  # as its worker tells it
    told = one.get("/api/v1/gallery").json()["examples"]
    for row in told:
        answer = one.get(f"/api/v1/gallery/{row['name']}?v={row['picture']}")
        assert answer.headers["content-type"] == "image/webp" and "immutable" in answer.headers["cache-control"]
        assert answer.content == Path(PICTURES / f"{row['name']}.webp").read_bytes()
    assert one.get("/api/v1/gallery/nothing").status_code == 404


def test_a_studio_has_what_its_first_page_shows(client: Callable[..., TestClient]) -> None:
    import asyncio

    from pops.server.gallery import SMALL, prepare

    one = client()
    core = one.app.state.core  # type: ignore[attr-defined]

    async def prepared() -> None:
        await prepare(core)
        await core.decoder.stop()

    asyncio.run(prepared())
    for row in one.get("/api/v1/gallery").json()["examples"]:
        for photo in row["photos"]:
            place = core.store.photo_path(photo)
            assert place.with_name(f"{photo}-{SMALL}.png").is_file()
