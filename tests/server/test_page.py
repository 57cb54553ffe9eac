"""The studio's page: its own files and no others, with and without a token, built or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pops.cli.main import app as pops
from pops.server import page
from pops.server.page import add_page, assets, is_public

BASE = "http://127.0.0.1:7860"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A page as the build leaves it."""
    (tmp_path / "web" / "assets").mkdir(parents=True)
    (tmp_path / "secret.js").write_text("secret")
    files = {"index.html": "<html>", "icon.svg": "<svg/>", "LICENSES.txt": "MIT", "assets/a-1.js": "1;" * 999}
    for name, text in files.items():
        (tmp_path / "web" / name).write_text(text)
    return tmp_path / "web"


def served(folder: Path) -> TestClient:
    app = FastAPI()
    add_page(app, folder)
    return TestClient(app, base_url=BASE)


def test_the_page_is_served_with_its_types_and_lifetimes(web: Path) -> None:
    one = served(web)
    index = one.get("/")
    assert index.text == "<html>" and index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.headers["cache-control"] == "no-cache"
    script = one.get("/assets/a-1.js")
    assert script.text == "1;" * 999 and "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip" and int(script.headers["content-length"]) < 200
    plain = one.get("/assets/a-1.js", headers={"accept-encoding": "identity"})
    assert plain.text == script.text and "content-encoding" not in plain.headers
    assert one.get("/icon.svg").headers["content-type"] == "image/svg+xml"
    assert one.get("/LICENSES.txt").text == "MIT"


@pytest.mark.parametrize(
    "path",
    ["/assets/../secret.js", "/assets/%2e%2e/%2e%2e/secret.js", "/assets/..%2f..%2fsecret.js", "/assets//a-1.js",
     "/assets/index.html", "/assets/", "/secret.js", "/index.html", "/assets/a-1.js%00", "/assets/%5c..%5csecret.js"],
)  # fmt: skip
def test_nothing_else_is_served(web: Path, path: str) -> None:
    answer = served(web).get(path)
    assert answer.status_code == 404 and "secret" not in answer.text


def test_a_server_without_the_page_says_how_to_build_it(tmp_path: Path) -> None:
    answer = served(tmp_path).get("/")
    assert answer.status_code == 404 and "make studio" in answer.text
    assert assets(tmp_path) == {}


def test_the_page_needs_no_token_and_everything_else_does(client: Callable[..., TestClient]) -> None:
    one = client(token="a-long-token")
    assert one.get("/").status_code in (200, 404)
    assert one.get("/assets/none.js").status_code == 404
    policy = one.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    for path in ("/api/v1/jobs", "/openapi.json", "/metrics", "/assetsx", "/api/v1/gallery"):
        assert one.get(path).status_code == 401, path
    assert one.post("/").status_code == 401


def test_what_is_public() -> None:
    assert is_public("GET", "/") and is_public("HEAD", "/assets/a.js")
    assert not is_public("POST", "/") and not is_public("GET", "/assets") and not is_public("GET", "//assets/a.js")


def test_the_command_says_that_the_page_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: Any = page.assets
    monkeypatch.setattr(page, "assets", lambda: known(tmp_path))
    done = CliRunner().invoke(pops, ["studio", "--no-browser", "--data", str(tmp_path / "data")])
    assert done.exit_code != 0
    assert "make studio" in done.output and "Traceback" not in done.output
    assert not (tmp_path / "data").exists()
