"""One server and one browser for all tests of the studio; every test has a window of its own.

A window fails its test when it asks anybody else for anything, or when the page writes an error.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers import ROOT
from windows import Window


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are of the browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Returns the browser; installs Debian's where there is none and that is allowed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        for step in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *step], check=False, capture_output=True)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no chromium, and it cannot be installed here (apt-get as root would)")
    return found


@pytest.fixture(scope="session")
def built() -> Path:
    """Returns the folder of the built page; builds it where it is not there or older than its sources."""
    spec = importlib.util.spec_from_file_location("studio_build", ROOT / "studio" / "build.py")
    assert spec is not None and spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    if not builder.is_built():
        builder.build()
    web: Path = builder.WEB
    return web


@contextmanager
def studio(data: Path, *options: str) -> Iterator[str]:
    """The address of a studio, started by the command that people use."""
    log = (data / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "pops", "studio", "--no-browser", "--port", "0", "--data", str(data / "data"), *options],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("the studio is at http://127.0.0.1:"), (line, (data / "log").read_text()[-2000:])
    yield line.split()[4]
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()
    log.close()


@pytest.fixture(scope="session")
def address(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio that runs for the session."""
    with studio(tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture
def started(built: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts studios of a test's own, each with data of its own."""
    with ExitStack() as running:

        def one(*options: str) -> str:
            data = Path(tempfile.mkdtemp(dir=tmp_path))
            return running.enter_context(studio(data, *options))

        yield one


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def window(browser: Any, address: str, started: Any) -> Iterator[Callable[..., Window]]:
    """Opens windows, which close before studios that were started end; what they asked for, and what went wrong in
    them, is looked at in the end."""
    contexts, asked, errors, own = [], [], [], {address}

    def one(beside: Window | None = None, at: str = address, **how: Any) -> Window:
        own.add(at)
        if beside is None:
            settings = {"viewport": {"width": 1440, "height": 900}, "locale": "en-US", "reduced_motion": "reduce"} | how
            context = browser.new_context(**settings)
            context.set_default_timeout(20_000)
            contexts.append(context)
        else:
            context = beside.page.context
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        return Window(page, at)

    yield one
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((*own, "data:", "blob:"))] == []
    refused = "status of 4"  # a request that the server refused; tests look at what the page says of it
    assert [error for error in errors if refused not in error] == []
