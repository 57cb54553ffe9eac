"""The Dockerfile: what it copies is there, and with POPS_TEST_DOCKERFILE=1 its steps are rehearsed in a clean venv.

The rehearsal takes torch and the other dependencies from this installation, builds the package of nothing but what the
Dockerfile copies, starts the server as the container does, and asks it as the health check does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from hatch_build import studio_builder

from servers import ROOT

TEXT = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
STAGES = re.split(r"^(?=FROM )", TEXT, flags=re.MULTILINE)  # the studio's page, by Node; the server
STEPS = [tuple(line.split(maxsplit=1)) for line in STAGES[-1].splitlines() if line and not line.startswith(("#", " "))]
PAGE = ["--from=page", "/web", "./src/pops/server/web"]
TOKEN = "correct-horse"


def step(kind: str) -> list[str]:
    return [words for name, words in STEPS if name == kind]


def copied() -> list[tuple[str, str]]:
    """Returns what is copied, and whereto."""
    rows = [row for row in (shlex.split(words) for words in step("COPY")) if row != PAGE]
    return [(source, row[-1]) for row in rows for source in row[:-1]]


def test_what_is_copied_is_there_and_enough_to_build() -> None:
    names = {source for source, _ in copied()}
    assert shlex.join(PAGE) in step("COPY") and "COPY studio ./" in STAGES[-2] and "POPS_WEB=/web" in STAGES[-2]
    assert all((ROOT / name).exists() for name in names)
    needed = set(re.findall(r"\bhatch_build\.py\b|\bLICENSE\b|\bREADME\.md\b", (ROOT / "pyproject.toml").read_text()))
    assert {"pyproject.toml", "src", "examples", *needed, "README.md", "hatch_build.py"} <= names
    extras = re.search(r"'\.\[([\w,]+)\]'", TEXT)
    assert extras is not None
    told = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{name} = \[", told, re.MULTILINE) for name in extras[1].split(","))


def test_it_does_not_run_as_root_and_asks_for_a_token() -> None:
    assert step("USER") == ["pops"] and "POPS_TOKEN" in TEXT
    command = json.loads(step("ENTRYPOINT")[0])
    assert command[:2] == ["pops", "serve"] and command[command.index("--host") + 1] == "0.0.0.0"


@pytest.mark.skipif(not os.environ.get("POPS_TEST_DOCKERFILE"), reason="takes minutes: POPS_TEST_DOCKERFILE=1")
def test_its_steps_in_a_clean_venv(tmp_path: Path) -> None:
    app, env = tmp_path / "app", tmp_path / "venv"
    for source, to in copied():
        place = app / (to if to.rstrip("/") not in (".", "") else source)
        kind = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
        place.parent.mkdir(parents=True, exist_ok=True)
        kind(ROOT / source, place)
    page = app / PAGE[-1]
    shutil.rmtree(page, ignore_errors=True)
    studio_builder(ROOT).build(page)
    venv.create(env, with_pip=True)
    python = env / "bin" / "python"
    home = next((env / "lib").iterdir()) / "site-packages"
    others = [path for path in site.getsitepackages() if "site-packages" in path]
    (home / "dependencies.pth").write_text("\n".join(others))
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--force-reinstall", "."], cwd=app, check=True, env=clean)
    where = [str(python), "-c", "import pops; print(pops.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True, env=clean)
    assert found.stdout.startswith(str(home)), found.stdout  # the built one, and not the clone

    command = [word.replace("/app", str(app)).replace("/data", str(tmp_path / "data"))
               for word in json.loads(step("ENTRYPOINT")[0])]  # fmt: skip
    told = {**clean, "POPS_TOKEN": TOKEN}
    server = subprocess.Popen(
        [str(env / "bin" / command[0]), *command[1:], "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=told,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert "listens on" in line
        port = re.search(r":(\d+)/", line)
        assert port is not None
        (check,) = step("HEALTHCHECK")
        code = json.loads(check[check.index("[") :])[2].replace(":7860", f":{port[1]}")
        subprocess.run([str(python), "-c", code], check=True, env=told, timeout=120)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=120)
    assert server.returncode == 0
    assert sys.version_info >= (3, 11)
