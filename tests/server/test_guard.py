"""Who may ask: Host, Origin, token, sizes; and the headers of every answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pops.errors import ConfigError
from pops.server.settings import Limits, Settings

JOB = {"expression": "texturing(examples/objects/teapot.png, _)", "seeds": [3]}
HOSTS = [
    "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example:7860", "127.0.0.2",
    "0.0.0.0", "[::2]:7860", "localhost@evil.example", "evil.example#localhost", "localhost/evil", "127.0.0.1:", "a b",
    "127.0.0.1:x", "localhost, evil.example", "LOCALHOST.evil", "xn--localhost-9za", "2130706433", "0x7f.1",
    "[::ffff:127.0.0.1]", "",
]  # fmt: skip
ORIGINS = [
    "null", "http://evil.example", "https://127.0.0.1:7860.evil.example", "http://127.0.0.1:7861",
    "http://localhost:7860", "file://", "http://127.0.0.1:7860@evil.example", "http://127.0.0.1:7860/x",
    "ftp://127.0.0.1:7860", "127.0.0.1:7860", "http://[::1]:7860", "http://127.0.0.1", "http://", "x", "http://[",
    "chrome-extension://abc",
]  # fmt: skip
SITES = ["cross-site", "same-site", "x", "CROSS-SITE"]


def test_only_hosts_that_are_its_own_are_answered(client: Callable[..., TestClient]) -> None:
    one = client()
    for host in HOSTS:
        for path in ("/api/v1/jobs", "/openapi.json", "/metrics"):
            assert one.get(path, headers={"host": host}).status_code in (400, 403), host
    for host in ("127.0.0.1:7860", "localhost:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "127.0.0.1:9999"):
        assert one.get("/api/v1/jobs", headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_pages_of_other_sites_change_nothing(client: Callable[..., TestClient], method: str) -> None:
    one = client()
    path = "/api/v1/jobs" if method == "POST" else "/api/v1/jobs/" + "0" * 32
    cases = [{"origin": origin} for origin in ORIGINS] + [{"sec-fetch-site": site} for site in SITES]
    for headers in cases:
        assert one.request(method, path, json=JOB, headers=headers).status_code == 403, headers
    assert one.get("/api/v1/jobs").json() == {"jobs": []}
    for headers in ({}, {"origin": "http://127.0.0.1:7860"}, {"sec-fetch-site": "same-origin"}):
        assert one.request(method, path, json=JOB, headers=headers).status_code == (202 if method == "POST" else 404)


def test_no_answer_allows_other_sites(client: Callable[..., TestClient]) -> None:
    one = client()
    for path in ("/api/v1/jobs", "/nothing", "/api/v1/photos/x"):
        answer = one.get(path, headers={"origin": "http://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_token_is_needed_where_there_is_one(client: Callable[..., TestClient]) -> None:
    one = client(token="correct-horse")
    for given in (None, "", "Bearer", "Bearer wrong", "Bearer correct-hors", "Basic correct-horse", "correct-horse"):
        headers = {} if given is None else {"authorization": given}
        for path in ("/api/v1/jobs", "/openapi.json", "/metrics", "/api/v1/health", "/nothing"):
            answer = one.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert one.get("/api/v1/jobs", headers={"authorization": "Bearer correct-horse"}).status_code == 200
    assert one.get("/api/v1/jobs", headers={"cookie": "pops_session=correct-horse"}).status_code == 401


def test_a_page_gets_a_cookie_for_the_token(client: Callable[..., TestClient]) -> None:
    one = client(token="correct-horse")
    assert one.post("/api/v1/session", json={"token": "wrong-wrong"}).status_code == 401
    answer = one.post("/api/v1/session", json={"token": "correct-horse"})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "correct-horse" not in cookie
    assert one.get("/api/v1/jobs").status_code == 200  # the client keeps it
    assert one.delete("/api/v1/session").status_code == 204
    assert one.get("/api/v1/jobs").status_code == 401


def test_bodies_have_a_size(client: Callable[..., TestClient]) -> None:
    one = client(Limits(json_body=2000, photo_body=5000))
    big = {"expression": "a" * 3000}
    assert one.post("/api/v1/jobs", json=big).status_code == 413
    chunks = iter([b"{", b" " * 3000, b"}"])  # no content-length
    assert one.post("/api/v1/jobs", content=chunks, headers={"content-type": "application/json"}).status_code == 413
    assert one.post("/api/v1/photos", files={"file": b"x" * 6000}).status_code == 413
    assert one.post("/api/v1/jobs", json=JOB, headers={"content-length": "9" * 30}).status_code == 413


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "pops.example.org"):
        with pytest.raises(ConfigError, match="--token"):
            Settings(tmp_path, host=host)
        Settings(tmp_path, host=host, token="correct-horse")
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        Settings(tmp_path, host=host)
    with pytest.raises(ConfigError, match="fewer than 8"):
        Settings(tmp_path, token="short")
