"""The gate before every request: who may ask, from where, and how much; and the headers that every answer has."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pops.server.metrics import Metrics
from pops.server.page import is_public
from pops.server.projects import MAX_DOCUMENT
from pops.server.settings import Settings

COOKIE = "pops_session"
LOGIN = "/api/v1/session"
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_TOO_LARGE = "the body is larger than the {} bytes that this takes"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?", re.IGNORECASE)


class TooLarge(HTTPException):
    """A body is larger than its route takes; an HTTPException, which FastAPI lets through where it reads bodies."""

    def __init__(self, most: int) -> None:
        super().__init__(413, _TOO_LARGE.format(most), {"connection": "close"})


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.cookie = None if settings.token is None else session_of(settings.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                self._count(scope, message["status"], time.perf_counter() - start)
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await _answer(answered, *refused)
            return
        most = self._most(scope)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            await _answer(answered, 413, "BodyError", _TOO_LARGE.format(most))
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise TooLarge(most)
            return message

        await self.app(scope, limited, answered)

    def _most(self, scope: Scope) -> int:
        limits, path = self.settings.limits, scope["path"]
        if path in ("/api/v1/photos", "/api/v1/open"):
            return limits.photo_body
        if path.startswith("/api/v1/projects"):
            return limits.project_body if path == "/api/v1/projects/file" else 2 * MAX_DOCUMENT
        return limits.json_body

    def _refused(self, scope: Scope) -> tuple[int, str, str] | None:
        """Returns status, code and message where a request goes no further."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return 400, "HostError", "the request needs one Host header"
        if host[1].strip("[]").lower().rstrip(".") not in self.settings.allowed_hosts:
            told = "the server does not answer to this Host; start it with --allow-host NAME if that is its name"
            return 403, "HostError", told
        origins = headers.getlist("origin")
        if scope["method"] in CHANGES:
            if any(not _same_origin(origin, hosts[0]) for origin in origins) or len(origins) > 1:
                return 403, "OriginError", "pages of other sites may change nothing here"
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                return 403, "OriginError", "pages of other sites may change nothing here"
        public = scope["path"] == LOGIN or is_public(scope["method"], scope["path"])
        if self.settings.token is not None and not public and not self._known(headers):
            return 401, "TokenError", "this server needs its token: Authorization: Bearer TOKEN"
        return None

    def _known(self, headers: Headers) -> bool:
        """Whether a request carries the token, or the cookie that was given for it."""
        assert self.settings.token is not None and self.cookie is not None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self.settings.token):
            return True
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and same(morsel.value, self.cookie)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in CHANGES | {"GET", "HEAD"} else "other"
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)


def session_of(token: str) -> str:
    """Returns what the cookie of a page holds: proof of the token, and not the token."""
    return hmac.new(token.encode(), b"pops session", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Compares in a time that says nothing of where two texts differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and not parts.path


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"connection", b"close")] if status == 413 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
