"""Takes a project's file of anyone's: its photos, pinned images and document become the server's, all or none."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, PhotoError, ensure
from pops.expression import parse
from pops.recipe import Recipe
from pops.server.core import Core, plain_name, put
from pops.server.packing import Unpacked, unpack
from pops.server.references import photo_id, photos_in
from pops.server.store import Store

Sizes = dict[Path, tuple[int, int]]


async def adopt(core: Core, path: Path) -> tuple[str, int]:
    """Takes a project's file; returns the new project's id and revision. ConfigError or PhotoError for what is wrong:
    then nothing was changed."""
    limits, folder = core.settings.limits, core.incoming()
    room = limits.disk - await asyncio.to_thread(core.store.used)
    folder.mkdir()
    try:
        found = await asyncio.to_thread(unpack, path, folder, max(0, min(limits.project_body, room)))
        sizes: Sizes = {}
        for name, place in [*((f"photo {n}", p) for n, (p, _) in found.photos.items()), *_images(found)]:
            try:
                sizes[place] = await core.decoder.photo(place)
            except PhotoError as e:
                raise PhotoError(f"the {name} in the file: {e}") from None
        recipes = {job: await _recipe(core, job, found) for job in dict.fromkeys(job for job, _ in found.images)}
        return await asyncio.to_thread(_kept, core, found, sizes, recipes)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _images(found: Unpacked) -> list[tuple[str, Path]]:
    return [(f"image {job}-{number}", place) for (job, number), place in found.images.items()]


async def _recipe(core: Core, job: str, found: Unpacked) -> Recipe:
    """Returns the recipe inside a job's first image; ConfigError where it is none."""
    place = next(place for (one, _), place in found.images.items() if one == job)
    data = await core.decoder.recipe(place)
    ensure(data is not None, f"the image of {job} in the file carries no recipe of pops; save it again", ConfigError)
    return Recipe.of_data(data, f"the image of {job}")


def _kept(core: Core, found: Unpacked, sizes: Sizes, recipes: Mapping[str, Recipe]) -> tuple[str, int]:
    """Puts all files in their places, and then all rows into the store, in one change."""
    store = core.store
    wanted = {store.photo_path(photo): place for photo, (place, _) in found.photos.items()}
    new = _new_images(store, found)
    wanted |= {store.image_path(job, number): found.images[job, number] for job, number in new}
    placed = [(place, to) for to, place in wanted.items() if not to.is_file()]
    bytes_of = {place: place.stat().st_size for place in wanted.values()}
    try:
        for place, to in placed:
            put(place, to)
        with store.change() as db:
            for photo, (place, name) in found.photos.items():
                row = (photo, *sizes[place], bytes_of[place], time.time(), plain_name(name))
                db.execute("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            for job in dict.fromkeys(job for job, _ in new):
                _add_job(core, db, job, recipes[job])
            for job, number in new:
                place = found.images[job, number]
                values = (f"{job}-{number}", job, number, *sizes[place], bytes_of[place])
                db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", values)
            return core.projects.add(found.name, dict(found.document), db)
    except BaseException:
        for _, to in placed:
            to.unlink(missing_ok=True)
        raise


def _new_images(store: Store, found: Unpacked) -> list[tuple[str, int]]:
    """Returns the images that are not here; ConfigError for one whose id is here with another picture."""
    new = []
    for (job, number), place in found.images.items():
        path = store.image_path(job, number)
        if store.job(job) is None:
            new.append((job, number))
            continue
        same = path.is_file() and path.read_bytes() == place.read_bytes()
        ensure(same, f"the image {job}-{number} in the file is not the one of this id here; save it again", ConfigError)
    return new


def _add_job(core: Core, db: Any, job: str, recipe: Recipe) -> None:
    """Notes the job of images that were made elsewhere: it is done, and none of those that a person asked for here."""
    names = [name for name, _ in photos_in(parse(recipe.expression).root)]
    photos = [found for name in names if (found := photo_id(name))]
    model, now = recipe.loading.model or core.settings.default, time.time()
    db.execute(
        "INSERT INTO jobs (id, model, recipe, photos, status, created, started, ended, quick) "
        "VALUES (?, ?, ?, ?, 'done', ?, ?, ?, 1)",
        (job, model, json.dumps(recipe.to_data()), json.dumps(photos), now, now, now),
    )
