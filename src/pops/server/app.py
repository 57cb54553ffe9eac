"""The application: routes, the gate before them, and errors as the API tells them. Start and stop belong to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from pops.errors import ExpressionError, PopsError, UserError
from pops.files import shown
from pops.recipe import Recipe
from pops.server import api, api_projects, api_studio
from pops.server.api import suggestion
from pops.server.core import Core, StorageFull
from pops.server.events import TooManyListeners
from pops.server.gallery import prepare
from pops.server.guard import Guard
from pops.server.page import add_page
from pops.server.projects import ProjectChanged, TooManyProjects
from pops.server.settings import Settings
from pops.server.shapes import Refusal, problem
from pops.server.store import QueueFull
from pops.version import __version__

STOP = 20.0  # seconds that running jobs have when the server stops
logger = logging.getLogger("pops.server")


def create_app(settings: Settings, *, stop_seconds: float = STOP) -> FastAPI:
    """Returns the ASGI application of one server. Its core is made when it starts."""
    core = Core(settings)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        await core.start()
        taking = asyncio.create_task(prepare(core)) if settings.gallery else None
        yield
        if taking is not None:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        await core.stop(stop_seconds)

    app = FastAPI(
        title="pops", version=__version__, lifespan=living, docs_url=None, redoc_url=None, redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        description="Compose pictures like equations: photos are the operands, trained operators the signs.",
    )  # fmt: skip
    app.state.core = core
    for routes in (api.router, api_studio.router, api_projects.router):
        app.include_router(routes)
    add_page(app)
    app.add_api_route("/metrics", _metrics, methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, settings=settings, metrics=core.metrics)
    app.add_exception_handler(PopsError, _of_pops)
    app.add_exception_handler(RequestValidationError, _of_shape)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_us)
    app.openapi = lambda: _openapi(app, settings)  # type: ignore[method-assign]
    return app


async def _metrics(request: Request) -> Response:
    core: Core = request.app.state.core
    core.metrics.listeners.set(core.events.count)
    core.metrics.tasks.set(len(asyncio.all_tasks()))
    core.metrics.waiting.set(core.store.count("queued"))
    return Response(core.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


# --- errors ----------------------------------------------------------------------------------------


async def _of_pops(request: Request, error: Exception) -> Response:
    assert isinstance(error, PopsError)
    code, message = type(error).__name__, str(error)
    if isinstance(error, ProjectChanged):
        return JSONResponse(problem(code, message, revision=error.revision), 409)
    if isinstance(error, (QueueFull, StorageFull, TooManyListeners, TooManyProjects)):
        wait = request.app.state.core.wait() if isinstance(error, QueueFull) else 60
        return JSONResponse(problem(code, message), 429, {"retry-after": str(wait)})
    if not isinstance(error, UserError):
        logger.error("a request failed: %s", message)
        return JSONResponse(problem(code, message), 503)
    span = list(error.span) if isinstance(error, ExpressionError) and error.span else None
    return JSONResponse(problem(code, message, span=span, suggestion=suggestion(message)), 422)


async def _of_shape(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = next(iter(error.errors()), {"loc": (), "msg": "malformed"})
    where = ".".join(str(step) for step in first["loc"])
    return JSONResponse(problem("RequestError", shown(f"{where}: {first['msg']}")), 422)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return JSONResponse(problem("RequestError", shown(error.detail)), error.status_code, headers)


async def _of_us(request: Request, error: Exception) -> Response:
    return JSONResponse(problem("InternalError", "a fault of the server; its log says more"), 500)


# --- the schema ------------------------------------------------------------------------------------


def _openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    if app.openapi_schema is None:
        data = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = data["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        recipe = Recipe.model_json_schema(ref_template="#/components/schemas/{model}")
        parts.update(recipe.pop("$defs", {}))
        parts["Recipe"] = recipe
        refusal = Refusal.model_json_schema(ref_template="#/components/schemas/{model}")
        parts.update(refusal.pop("$defs", {}))
        parts["Refusal"] = refusal
        if settings.token is not None:
            data["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, methods in data["paths"].items():
                for operation in methods.values() if path != "/api/v1/session" else ():
                    operation["security"] = [{"token": []}]
        app.openapi_schema = data
    return app.openapi_schema
