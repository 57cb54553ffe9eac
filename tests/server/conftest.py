"""Servers for tests: one in this process without workers, and real ones, with processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pops.recipe import Loading
from pops.server.app import create_app
from pops.server.settings import Limits, Settings
from servers import ROOT, Live, start

BASE = "http://127.0.0.1:7860"
LOADED = {"device": "cpu", "max_batch": 8, "dtype": "float32", "threads": 1}  # as a worker tells it


@pytest.fixture(scope="session")
def live(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that tests share."""
    server = start(tmp_path_factory.mktemp("server") / "data", folder)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def tiny_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with the model that ships, which tests share."""
    server = start(tmp_path_factory.mktemp("tiny") / "data", Path("tiny"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def serving(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Starts servers of a test's own; all use the same data."""
    servers: list[Live] = []

    def one(*options: str) -> Live:
        servers.append(start(tmp_path / "data", folder, *options))
        return servers[-1]

    yield one
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Makes servers in this process, without workers: their jobs wait."""
    apps: list[Any] = []

    def made(limits: Limits | None = None, **settings: Any) -> TestClient:
        settings = {"models": (Loading(model=str(folder)),), "examples": ROOT / "examples", **settings}
        about = Settings(tmp_path / f"data{len(apps)}", limits=limits or Limits(), **settings)
        app = create_app(about)
        (about.data / "incoming").mkdir(exist_ok=True)
        for line in app.state.core.lines.values():
            line.loaded = {"model": str(folder), **LOADED}
        apps.append(app)
        return TestClient(app, base_url=BASE, raise_server_exceptions=False)

    yield made
    for app in apps:
        app.state.core.store.close()
        app.state.core._lock.release()
