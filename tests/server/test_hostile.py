"""Names and ids of anyone's reach no file outside the server's folder, and no network."""

from __future__ import annotations

import json
import posixpath
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from fastapi.testclient import TestClient

PIECES = [
    "..", "../..", "/etc/passwd", "%2e%2e%2f", "..%c0%af", "C:\\", "\\\\evil\\share", "file:///etc/passwd",
    "~root/.ssh/id_rsa", "http://evil.example/a.png", "//evil.example/a.png", "s3://b/a.png", "a.png\x00.png", "CON",
    "nul", "/proc/self/environ", "/dev/zero", "photo:..", "photo:/etc/passwd", "photo:" + "0" * 32,
    "examples/../pyproject.toml", "examples/", ".", "", "examples//objects/teapot.png", "Examples/objects/teapot.png",
    "'; DROP TABLE jobs; --", "\u202egnp.a", "💥", "a" * 5000, "jobs.sqlite", "data:image/png;base64,AAAA", "${HOME}",
    "$(id)", "`id`", "{{7*7}}", "-o", "--help", "e.safetensors", "learned_prior.pth", "x.ipadpt", "/tmp", "org/model",
    "0" * 33, "0" * 31 + "g", "0" * 32 + "\n", "\ud800",
]  # fmt: skip


def names(count: int) -> list[str]:
    """Returns hostile names: pieces, and pieces joined."""
    chance = random.Random(0)
    made = list(PIECES)
    while len(made) < count:
        made.append(chance.choice(["/", "", "%00", ":", "-"]).join(chance.sample(PIECES, 2))[:6000])
    return made


_reached: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in (
        "open",
        "os.listdir",
        "os.scandir",
        "socket.connect",
        "subprocess.Popen",
        "os.remove",
        "os.rename",
    ):
        _reached.append(f"{event} {arguments[:2]}")


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yields what is opened, listed, removed and connected to, as the interpreter tells it."""
    global _watching
    _reached.clear()
    _watching = True
    try:
        yield _reached
    finally:
        _watching = False


ROUTES = [
    ("GET", "/api/v1/photos/{}"), ("GET", "/api/v1/images/{}"), ("GET", "/api/v1/jobs/{}"),
    ("POST", "/api/v1/jobs/{}/favourite"), ("GET", "/api/v1/projects/{}"), ("DELETE", "/api/v1/projects/{}"),
    ("GET", "/api/v1/projects/{}/file"), ("DELETE", "/api/v1/jobs/{}"),
    ("GET", "/api/v1/jobs/{}/events"), ("GET", "/{}"), ("GET", "/api/v1/{}"),
]  # fmt: skip


def bodies(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every place of a request in which a name may stand."""
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    texts = [f"texturing({name}, _)", f"texturing('{quoted}', _)", f"photo('{quoted}')", f"saved('{quoted}')", name]
    loading: list[dict[str, Any]] = [
        {key: name} for key in ("model", "decoder", "renderer", "library", "adapter", "device", "dtype", "precision")
    ]
    loading += [{"operators": {"texturing": name}}, {"controlnets": {"depth": name}}]
    good = "texturing(examples/objects/teapot.png, _)"
    recipes: list[dict[str, Any]] = [{"expression": text} for text in texts]
    recipes += [{"expression": good, "loading": one} for one in loading]
    recipes += [{"expression": good, "rendering": {"control": {"depth": one}}} for one in (name, f"map:{name}")]
    found: list[tuple[str, dict[str, Any]]] = [("/api/v1/jobs", recipe) for recipe in recipes]
    found += [("/api/v1/parse", {"text": text}) for text in texts]
    found += [("/api/v1/parse", {"tree": {"photo": name}}), ("/api/v1/parse", {"text": good, "model": name})]
    found += [("/api/v1/export", {"recipe": {"expression": name}, "as": "command"})]
    found += [
        ("/api/v1/export", {"recipe": {"expression": f"photo:{'0' * 32}"}, "as": "python", "names": {name: name}})
    ]
    found += [("/api/v1/projects", {"name": "x", "document": {key: [name]}}) for key in ("photos", "pins")]
    return [*found, ("/api/v1/search", {"expression": good, "library": name})]


def test_hostile_names_reach_nothing(client: Callable[..., TestClient]) -> None:
    one = client()
    one.get("/api/v1/operators")
    one.post("/api/v1/jobs", json={"expression": "texturing(examples/objects/teapot.png, _)"})  # all is imported
    data = str(one.app.state.core.settings.data)  # type: ignore[attr-defined]
    allowed = (data, str(Path(sys.prefix)), str(Path(sys.base_prefix)), "/proc/self/statm")
    package = str(Path(__file__).parents[2] / "src")
    hostile = names(500)
    routes = one.app.openapi()["paths"]  # type: ignore[attr-defined]
    bad: list[str] = []
    chance = random.Random(1)
    for number, name in enumerate(hostile):
        with watched() as reached:
            for method, route in ROUTES:
                url = route.format(quote(name.encode("utf-8", "surrogatepass"), safe="/%" if number % 2 else ""))
                answer = one.request(method, url)
                # "jobs/." is "jobs" to every client, and "//tmp" the page of a host: another route, and no name
                asked = {posixpath.normpath(unquote(url)), posixpath.normpath(answer.request.url.path or "/")}
                other = bool(asked & {*routes, "/", "//"}) and answer.status_code == 200
                bad += (
                    [f"{answer.status_code} {method} {url[:200]}"]
                    if not (400 <= answer.status_code < 500 or other)
                    else []
                )
            for path, body in chance.sample(bodies(name), 10 if number < len(PIECES) else 2):
                answer = one.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
                kept = answer.status_code == 202 and not one.app.state.core.store.count("queued")  # type: ignore[attr-defined]
                bad += [f"{answer.status_code} {body!r:.200}"] if answer.status_code >= 500 or kept else []
                assert "root:x:" not in answer.text and "[project]" not in answer.text
            outside = [what for what in reached if not any(f"'{place}" in what for place in (*allowed, package))]
        bad += [f"{name[:60]!r} reached {what}" for what in outside]
    assert bad == []


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    with watched() as reached:
        (tmp_path / "x").write_text("x")
    assert any("x" in what for what in reached)


@pytest.mark.parametrize("expression", ["e.safetensors", "$x", "text('a') + e.npy"])
def test_what_is_no_photo_of_the_server_is_refused_with_its_place(
    client: Callable[..., TestClient], expression: str
) -> None:
    answer = client().post("/api/v1/jobs", json={"expression": expression})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "ExpressionError" and answer.json()["error"]["span"]
