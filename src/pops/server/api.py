"""The routes under /api/v1. Each checks what it is given, calls the core, and answers in the shapes of shapes.py."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Body, Depends, HTTPException, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from pops.diffusion.sizes import scale_of
from pops.errors import ConfigError, PhotoError, PopsError, ensure
from pops.expression.grammar import parse, to_text
from pops.expression.trees import from_tree, to_tree
from pops.models.hub import known as published
from pops.recipe import Recipe
from pops.server import shapes
from pops.server.core import Core, plain_name
from pops.server.events import until_ended
from pops.server.guard import COOKIE, same, session_of
from pops.server.references import PHOTO, photos_in
from pops.server.store import ENDED, Job
from pops.version import __version__

_CHUNK = 2**20
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The image."}}
_DRAWN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "image/svg+xml": {}}, "description": "The image."}
}
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Returns the answers of a route that are no success, for the schema."""
    said = {
        400: "malformed", 401: "no token", 403: "not from here", 404: "unknown", 409: "changed meanwhile",
        413: "too large", 422: "cannot be used", 429: "too much at a time; see Retry-After", 503: "not ready",
    }  # fmt: skip
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}  # whatever the route's own type
    return {code: {"content": body, "description": said[code]} for code in codes}


def leading_to(status: int, *routes: str) -> dict[int | str, dict[str, Any]]:
    """Returns a success whose id is that of other routes' paths, for the schema."""
    links = {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in routes}
    return {status: {"description": "accepted", "links": links}}


router = APIRouter(prefix="/api/v1", responses=refusals(400, 401, 403, 413, 422))


def core_of(request: Request) -> Core:
    """Returns the server's core."""
    return cast(Core, request.app.state.core)


CoreHere = Annotated[Core, Depends(core_of)]


async def known_job(core: CoreHere, id: Annotated[shapes.JobId, InPath()]) -> Job:  # noqa: A002
    """Returns the job of a path; 404 for an unknown one."""
    job = await asyncio.to_thread(core.store.job, id)
    if job is None:
        raise HTTPException(404, f"there is no job {id}")
    return job


KnownJob = Annotated[Job, Depends(known_job)]


@asynccontextmanager
async def received(core: Core, file: UploadFile) -> AsyncIterator[Path]:
    """Yields a place with the bytes of an upload, and removes it afterwards."""
    place = core.incoming()
    try:
        with place.open("wb") as out:
            while chunk := await file.read(_CHUNK):
                await asyncio.to_thread(out.write, chunk)
        yield place
    finally:
        place.unlink(missing_ok=True)


# --- photos and images -----------------------------------------------------------------------------


@router.post("/photos", status_code=201, responses={**leading_to(201, "photo"), **refusals(429)})
async def upload(core: CoreHere, file: UploadFile) -> shapes.PhotoAnswer:
    """Takes a photo. The same bytes have the same id."""
    async with received(core, file) as place:
        photo = await core.take_photo(place, plain_name(file.filename))
    return shapes.PhotoAnswer(id=photo.id, width=photo.width, height=photo.height, name=photo.name)


@router.get("/photos/{id}", responses={**_PICTURE, **refusals(404)}, response_class=Response)
async def photo(core: CoreHere, id: Annotated[shapes.PhotoId, InPath()], size: shapes.Size = 256) -> Response:  # noqa: A002
    """Returns a small copy of a photo, as PNG."""
    if await asyncio.to_thread(core.store.photo, id) is None:
        raise HTTPException(404, f"there is no photo {id}")
    return FileResponse(await core.small_photo(id, size), media_type="image/png", headers=FOREVER)


@router.get("/images/{id}", responses={**_DRAWN, **refusals(404)}, response_class=Response)
async def image(
    core: CoreHere,
    id: Annotated[shapes.ImageId, InPath()],  # noqa: A002
    size: shapes.Size | None = None,
    recipe: Annotated[bool, Query(description="0 leaves the recipe out")] = True,
    format: Annotated[Literal["png", "svg"], Query(description="svg: of a tree or an equation")] = "png",  # noqa: A002
) -> Response:
    """Returns an image, as PNG with its recipe; with `size` a small copy without it; a figure also as SVG."""
    found = await asyncio.to_thread(core.store.image, id)
    if found is None:
        raise HTTPException(404, f"there is no image {id}")
    job, one = found
    place = core.store.image_path(job, one.number)
    if format == "svg":
        drawn = place.with_suffix(".svg")
        if not await asyncio.to_thread(drawn.is_file):
            raise HTTPException(404, f"the image {id} is no tree and no equation, and has no SVG")
        return FileResponse(drawn, media_type="image/svg+xml", headers=FOREVER)
    if size is not None or not recipe:
        place = await core.copy_of_image(job, one.number, size)
    return FileResponse(place, media_type="image/png", headers=FOREVER)


# --- jobs ------------------------------------------------------------------------------------------

_RECIPE: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {
    "schema": {"$ref": "#/components/schemas/Recipe"},
    "examples": {"texturing": {"value": {"expression": "texturing(examples/objects/teapot.png, _)", "seeds": [3]}}},
}}}}  # fmt: skip


@router.post(
    "/jobs", status_code=202, responses={**leading_to(202, "job", "cancel"), **refusals(429)}, openapi_extra=_RECIPE
)
async def queue(
    core: CoreHere,
    recipe: Annotated[dict[str, Any], Body()],
    reuse: Annotated[bool, Query(description="takes a job of the same recipe, if there is one")] = False,
    quick: Annotated[bool, Query(description="runs behind those that a person asked for")] = False,
) -> shapes.Accepted:
    """Accepts a recipe, whose photos are photo:ID. An accepted job is made, whatever ends in between."""
    accepted, reused = await core.queue(recipe, quick=quick, reuse=reuse)
    return shapes.Accepted(id=accepted.id, reused=reused)


@router.get("/jobs")
async def jobs(
    core: CoreHere, after: Annotated[int, Query(ge=0, le=2**62)] = 0, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> shapes.JobList:
    """Lists jobs in the order in which they came, those after the number `after`."""
    found = await asyncio.to_thread(core.store.jobs, after, limit)
    return shapes.JobList(jobs=[shapes.JobAnswer.of(job) for job in found])


@router.get("/jobs/{id}", responses=refusals(404))
async def job(
    core: CoreHere, known: KnownJob, wait: Annotated[float, Query(ge=0, le=60, description="seconds")] = 0
) -> shapes.JobAnswer:
    """Returns a job: as it is, or with `wait` as soon as it has ended, at most so many seconds later."""
    now: Job | None = known
    if wait and known.status not in ENDED:
        queue = core.events.listen(known.id)
        try:
            now = await asyncio.to_thread(core.store.job, known.id)
            if now is not None and now.status not in ENDED:
                async with asyncio.timeout(wait):
                    async for _ in until_ended(queue):
                        pass
        except TimeoutError:
            pass
        finally:
            core.events.leave(known.id, queue)
        now = await asyncio.to_thread(core.store.job, known.id)
    return shapes.JobAnswer.of(now or known)


@router.delete("/jobs/{id}", responses=refusals(404))
async def cancel(core: CoreHere, known: KnownJob) -> shapes.JobAnswer:
    """Cancels a job: at once if it waits, within a step if it runs. One that has ended stays as it is."""
    await core.cancel(known)
    now = await asyncio.to_thread(core.store.job, known.id)
    return shapes.JobAnswer.of(now or known)


@router.get("/jobs/{id}/events", response_class=EventSourceResponse, responses=refusals(404, 429))
async def events(core: CoreHere, found: KnownJob) -> AsyncIterator[ServerSentEvent]:
    """Streams what becomes of a job: queued or running as it is now, warnings and images so far, then progress,
    warning, preview and image as they come, and last done, failed or cancelled."""
    queue = core.events.listen(found.id, watching=True)
    try:
        await core.watch(found)
        now = await asyncio.to_thread(core.store.job, found.id) or found
        told = set()
        if now.status not in ENDED:
            yield ServerSentEvent(event=now.status, data={})
        for warning in now.warnings:
            yield ServerSentEvent(event="warning", data=dict(warning))
        for one in now.images:
            told.add(one.number)
            yield ServerSentEvent(event="image", data=shapes.ImageAnswer.of(one).model_dump())
        if now.status in ENDED:
            yield ServerSentEvent(event=now.status, data={"error": now.error} if now.error else {})
            return
        async for event in until_ended(queue):
            known = event.data in now.warnings if event.name == "warning" else event.data.get("number") in told
            if event.name not in ("image", "warning") or not known:
                yield ServerSentEvent(event=event.name, data=event.data)
    finally:
        core.events.leave(found.id, queue)
        await core.watch(found)


# --- what there is ---------------------------------------------------------------------------------


@router.post("/parse")
async def parse_expression(core: CoreHere, asked: shapes.Parse) -> shapes.Parsed:
    """Parses a text, or writes a tree as text. A mistake is told with its place and what may have been meant."""
    model = _model(core, asked.model)

    def both() -> shapes.Parsed:
        ensure(
            ("text" in asked.model_fields_set) != ("tree" in asked.model_fields_set), "give text or tree: one of them"
        )
        root = from_tree(asked.tree) if "tree" in asked.model_fields_set else parse(asked.text)
        text = to_text(root)
        core.checker.plan(asked.text or text, model)
        photos = list(dict.fromkeys(name for name, _ in photos_in(root)))
        return shapes.Parsed(text=text, tree=cast(Any, to_tree(root)), photos=photos)

    return await asyncio.to_thread(both)


def _model(core: Core, name: str | None) -> str:
    name = core.settings.default if name is None else name
    if name not in core.lines:
        raise ConfigError(f"the server has no model {name[:80]!r}; choose from {', '.join(core.lines)}")
    return name


ModelName = Annotated[str | None, Query(max_length=4096, description="the server's first, unless given")]


@router.get("/operators")
async def operators(core: CoreHere, model: ModelName = None) -> shapes.Operators:
    """Lists the operators of a model."""
    name = _model(core, model)
    specs = {key: spec.to_json() for key, spec in core.models[name].operators.items()}
    return shapes.Operators(model=name, operators=json.loads(json.dumps(specs)))


@router.get("/models")
async def models(core: CoreHere) -> shapes.Models:
    """Lists the models that are loaded, and of every model with a name what it needs, and how to get it."""
    rows = []
    for line in core.lines.values():
        loading = {key: value for key, value in (line.loaded or {}).items() if value not in (None, {})}
        default = line.name == core.settings.default
        scale = await asyncio.to_thread(scale_of, core.models[line.name].files.renderer)
        about = {"version": line.version, "default": default, "loading": loading, "upscale": scale}
        rows.append(shapes.ModelAnswer.model_validate({"name": line.name, **about}))
    needs: list[dict[str, Any]] = await asyncio.to_thread(published)
    return shapes.Models(models=rows, needs=[shapes.NeededModel(**row) for row in needs])


@router.get("/renderers", responses=refusals(503))
async def renderers(core: CoreHere, model: ModelName = None) -> shapes.Renderers:
    """Lists the installed renderers and what each can do with a model."""
    name = _model(core, model)
    known = core.renderers.get(name)
    if known is None:
        try:
            known = (await core.lines[name].ask({"do": "renderers"}, 30))["renderers"]
        except (PopsError, TimeoutError):
            raise HTTPException(503, "the worker is at work; ask again") from None
        core.renderers[name] = known
    return shapes.Renderers(model=name, renderers=known)


@router.get("/sources")
async def sources(core: CoreHere) -> shapes.Sources:
    """Lists the examples and libraries that recipes may name."""
    return shapes.Sources(examples=list(core.examples), libraries=list(core.settings.libraries))


@router.get("/schema")
async def schema() -> dict[str, Any]:
    """Returns the JSON schema of recipes."""
    return Recipe.json_schema()


@router.get("/health", responses={503: {"model": shapes.Health, "description": "not well"}})
async def health(core: CoreHere, response: Response) -> shapes.Health:
    """Makes a tiny image with every model that is idle; 503 where one does not."""
    rows = await core.health()
    well = all(bool(row["ok"]) for row in rows)
    response.status_code = 200 if well else 503
    waiting = await asyncio.to_thread(core.store.count, "queued")
    return shapes.Health(ok=well, version=__version__, workers=rows, waiting=waiting)


@router.post("/search", responses=refusals(503))
async def search(core: CoreHere, asked: shapes.Search) -> shapes.Matches:
    """Finds the photos of a library that are nearest to an expression."""
    libraries = {name: str(path) for name, path in core.settings.libraries.items()}
    known = ", ".join(libraries) or "none is loaded"
    ensure(
        asked.library in libraries,
        f"the server has no library {asked.library[:80]!r}; choose from: {known}",
        ConfigError,
    )
    parts = {"making": asked.making, "loading": asked.loading}
    recipe = {
        "expression": asked.expression,
        "seeds": [asked.seed],
        **{name: part for name, part in parts.items() if part},
    }
    _, model, ids = await asyncio.to_thread(core.checker.recipe, recipe)
    message = {
        "do": "search",
        "recipe": recipe,
        "count": asked.count,
        "library": libraries[asked.library],
        "libraries": libraries,
        "photos": core.files([f"{PHOTO}{found}" for found in ids]),
    }
    try:
        matches = (await core.lines[model].ask(message, 60))["matches"]
    except TimeoutError:
        raise HTTPException(503, "the worker is at work; ask again") from None
    return shapes.Matches(matches=[await _match(core, match) for match in matches])


async def _match(core: Core, match: Mapping[str, Any]) -> shapes.Match:
    """A photo that was found becomes one of the server's, which recipes may name."""
    path = Path(match["path"])
    try:
        found = await core.take_copy(path)
    except OSError:
        raise PhotoError(f"the library's photo {path.name} is no longer there; index it again") from None
    return shapes.Match(id=found.id, name=path.name, score=match["score"])


# --- pages -----------------------------------------------------------------------------------------


@router.post("/session", status_code=204)
async def log_in(core: CoreHere, asked: shapes.Token, request: Request) -> Response:
    """Gives a page that knows the token a cookie in its place."""
    token = core.settings.token
    if token is None or not same(asked.token, token):
        raise HTTPException(401, "this is not the token of the server")
    response = Response(status_code=204)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", secure=secure, max_age=30 * 86_400)
    return response


@router.delete("/session", status_code=204)
async def log_out() -> Response:
    """Takes a page's cookie back."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def suggestion(message: str) -> str | None:
    """Returns what an error says may have been meant."""
    match = re.search(r"did you mean '([^']+)'", message)
    return match[1] if match else None
