"""The routes of projects under /api/v1: kept, changed in several windows, taken along as a file."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from pops.server import shapes
from pops.server.adopting import adopt
from pops.server.api import CoreHere, leading_to, received, refusals
from pops.server.packing import pack

router = APIRouter(prefix="/api/v1", responses=refusals(400, 401, 403, 413, 422))
ProjectId = Annotated[shapes.PhotoId, InPath()]
_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "The project."}}
_OTHERS = ("project", "save_project", "delete_project", "project_file")


@router.get("/projects")
async def projects(core: CoreHere) -> shapes.ProjectList:
    """Lists all projects, those that changed last first."""
    found = await asyncio.to_thread(core.projects.all)
    return shapes.ProjectList(projects=[shapes.ProjectRow(**shapes.row_of(project)) for project in found])


@router.post("/projects", status_code=201, responses={**leading_to(201, *_OTHERS), **refusals(429)})
async def new_project(core: CoreHere, asked: shapes.NewProject) -> shapes.Revision:
    """Stores a new project."""
    id_, revision = await asyncio.to_thread(core.projects.add, asked.name, asked.document)
    return shapes.Revision(id=id_, revision=revision)


@router.post("/projects/file", status_code=201, responses={**leading_to(201, *_OTHERS), **refusals(429)})
async def open_project(core: CoreHere, file: UploadFile) -> shapes.Revision:
    """Takes a project's file (NAME.pops), whole or not at all."""
    async with received(core, file) as place:
        id_, revision = await adopt(core, place)
    return shapes.Revision(id=id_, revision=revision)


@router.get("/projects/{id}", responses=refusals(404))
async def project(core: CoreHere, id: ProjectId) -> shapes.ProjectAnswer:  # noqa: A002
    """Returns a project with its document."""
    found = await asyncio.to_thread(core.projects.get, id)
    if found is None:
        raise HTTPException(404, f"there is no project {id}")
    return shapes.ProjectAnswer(**shapes.row_of(found), document=dict(found.document))


@router.put("/projects/{id}", responses=refusals(404, 409))
async def save_project(core: CoreHere, id: ProjectId, asked: shapes.ChangedProject) -> shapes.Revision:  # noqa: A002
    """Stores a project that was loaded at a revision; 409, with the newest, where another window stored one since."""
    revision = await asyncio.to_thread(core.projects.save, id, asked.name, asked.document, asked.revision)
    if revision is None:
        raise HTTPException(404, f"there is no project {id}")
    return shapes.Revision(id=id, revision=revision)


@router.delete("/projects/{id}", status_code=204, responses=refusals(404))
async def delete_project(core: CoreHere, id: ProjectId) -> Response:  # noqa: A002
    """Forgets a project; what it kept may be tidied away."""
    if not await asyncio.to_thread(core.projects.delete, id):
        raise HTTPException(404, f"there is no project {id}")
    return Response(status_code=204)


@router.get("/projects/{id}/file", responses={**_ZIP, **refusals(404)}, response_class=Response)
async def project_file(core: CoreHere, id: ProjectId) -> Response:  # noqa: A002
    """Returns a project as a file: its document, photos and pinned images."""
    found = await asyncio.to_thread(core.projects.get, id)
    if found is None:
        raise HTTPException(404, f"there is no project {id}")
    place = core.incoming()
    try:
        await asyncio.to_thread(pack, core.store, found, place)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    name = re.sub(r'[\\/:*?"<>|]+', "_", found.name).strip(" .") or "project"
    gone = BackgroundTask(place.unlink, missing_ok=True)
    return FileResponse(place, media_type="application/zip", filename=f"{name}.pops", background=gone)
