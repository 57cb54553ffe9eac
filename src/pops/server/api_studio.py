"""The routes under /api/v1 that the studio needs beside those of every client."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse

from pops.server import shapes
from pops.server.api import FOREVER, CoreHere, KnownJob, received, refusals
from pops.server.gallery import gallery, picture_path
from pops.server.history import favour, history
from pops.server.opening import open_file
from pops.server.writing import written

router = APIRouter(prefix="/api/v1", responses=refusals(400, 401, 403, 413, 422))
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The sheet."}}
_WEBP: dict[int | str, dict[str, Any]] = {200: {"content": {"image/webp": {}}, "description": "The picture."}}
Words = Annotated[str, Query(max_length=1000)]


@router.get("/history")
async def past(
    core: CoreHere,
    text: Words = "",
    operator: Words = "",
    before: Annotated[int | None, Query(ge=0, le=2**62, description="the place of the last one told")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    favourite: bool = False,
) -> shapes.JobList:
    """Lists what a person asked for, the newest first: that holds all words of a text, that uses an operator."""
    found = await asyncio.to_thread(history, core.store, text, operator, before, limit, favourite=favourite)
    return shapes.JobList(jobs=[shapes.JobAnswer.of(job) for job in found])


@router.post("/jobs/{id}/favourite", responses=refusals(404))
async def set_favourite(core: CoreHere, known: KnownJob, asked: shapes.Favourite) -> shapes.JobAnswer:
    """Makes a job a favourite, which is kept, or one no more."""
    await asyncio.to_thread(favour, core.store, known.id, favourite=asked.favourite)
    now = await asyncio.to_thread(core.store.job, known.id)
    return shapes.JobAnswer.of(now or known)


@router.post("/open")
async def open_recipe(core: CoreHere, file: UploadFile) -> shapes.Opened:
    """Opens an image that pops made, or a recipe's JSON: its recipe, in the names of the photos that are here."""
    async with received(core, file) as place:
        return shapes.Opened(**asdict(await open_file(core, place)))


@router.post("/export")
async def export(core: CoreHere, asked: shapes.Export) -> shapes.Snippet:
    """Writes a recipe as lines of Python or as a command, which make the same images of files by these names."""
    text, files = await asyncio.to_thread(written, core, asked.recipe, asked.kind, asked.names)
    return shapes.Snippet(text=text, files=files)


@router.post("/sheet", responses={**_PNG, **refusals(404)}, response_class=Response)
async def sheet(core: CoreHere, asked: shapes.Sheet) -> Response:
    """Draws images of the server as one PNG, each with its label, and the recipe of each inside."""
    cells, recipes = [], []
    for cell in asked.cells:
        found = await asyncio.to_thread(core.store.image, cell.image)
        if found is None:
            raise HTTPException(404, f"there is no image {cell.image}")
        path = core.store.image_path(found[0], found[1].number)
        cells.append((path, cell.label))
        recipes.append({"label": cell.label, "recipe": await core.decoder.recipe(path)})
    place = core.incoming()
    try:
        await core.decoder.sheet(cells, asked.title, recipes, place)
        return Response(await asyncio.to_thread(place.read_bytes), media_type="image/png")
    finally:
        place.unlink(missing_ok=True)


@router.get("/gallery", responses=refusals(429, 503))
async def worked_examples(core: CoreHere) -> shapes.Gallery:
    """Lists worked examples, whose photos are photos of the server."""
    return shapes.Gallery(examples=[shapes.Example(**asdict(one)) for one in await gallery(core)])


@router.get("/gallery/{name}", responses={**_WEBP, **refusals(404)}, response_class=Response)
async def example_picture(name: Annotated[str, InPath(pattern="^[a-z]{1,40}$")], v: Words = "") -> Response:
    """Returns the picture of a worked example that ships with pops, with its recipe inside. v: its version."""
    path = await asyncio.to_thread(picture_path, name)
    if path is None:
        raise HTTPException(404, f"there is no example {name}")
    return FileResponse(path, media_type="image/webp", headers=FOREVER if v else None)
