"""Serves the studio: the files that its build left in web/, and nothing else. They are read when the server starts.

A request's path is looked up among the names of these files; it never becomes a path of the file system.
"""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response

WEB = Path(__file__).parent / "web"
INDEX = "index.html"
ASSETS = "assets/"  # files whose names hold their digests
KINDS = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"
_ABSENT = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pops</title>
<h1>The studio is not built</h1>
<p>This server answers under <code>/api/v1</code>. For the page, run <code>make studio</code> in a clone of pops, or
install a released wheel.</p>
</html>
"""


@dataclass(frozen=True)
class Asset:
    """A file of the page, as it is and compressed."""

    kind: str
    body: bytes
    small: bytes
    cache: str


def assets(folder: Path = WEB) -> dict[str, Asset]:
    """Returns the page's files by their paths in addresses; empty where the studio was not built."""
    if not (folder / INDEX).is_file():
        return {}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            kind = KINDS.get(path.suffix) or mimetypes.guess_type(name)[0] or "text/plain"
            body = path.read_bytes()
            cache = _FOREVER if name.startswith(ASSETS) else "no-cache"
            found[name] = Asset(kind, body, gzip.compress(body, 6, mtime=0), cache)
    return found


def is_public(method: str, path: str) -> bool:
    """Returns whether a request is for the page itself, which is no secret: it asks for the token."""
    return method in ("GET", "HEAD") and (path == "/" or path in ("/icon.svg", "/LICENSES.txt") or path[1:8] == ASSETS)


def add_page(app: FastAPI, folder: Path = WEB) -> None:
    """Adds the routes of the page to an application."""
    known = assets(folder)

    async def page(request: Request, name: str = "") -> Response:
        path = request.url.path.removeprefix("/") or INDEX
        asset = known.get(path)
        if asset is None:
            if path == INDEX:
                return Response(_ABSENT, 404, {"content-type": "text/html; charset=utf-8"})
            return Response("there is no such file\n", 404, {"content-type": "text/plain; charset=utf-8"})
        headers = {"content-type": asset.kind, "cache-control": asset.cache, "vary": "accept-encoding"}
        if asset.kind.startswith("text/"):
            headers["content-type"] += "; charset=utf-8"
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.small, headers={**headers, "content-encoding": "gzip"})
        return Response(asset.body, headers=headers)

    for route in ("/", "/icon.svg", "/LICENSES.txt", f"/{ASSETS}{{name}}"):
        app.add_api_route(route, page, methods=["GET", "HEAD"], include_in_schema=False)
