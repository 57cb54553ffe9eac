"""A renderer of a package of one's own: installed beside pops, listed, and used from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pops.embedding import Embedding
from pops.images import read_recipe
from pops.render import names, registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "renderer"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built and installed by pip into a folder of its own."""
    work = tmp_path_factory.mktemp("own")
    source = work / "source"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    pip += ["--no-deps", "--no-build-isolation", "--target", str(work / "site"), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work / "site"


def pops(installed: Path, *words: str) -> Any:
    path = os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-W", "error", "-m", "pops.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_the_example_is_short() -> None:
    code = (EXAMPLE / "pops_stripes.py").read_text(encoding="utf-8").split('"""')[2]
    lines = [line for line in code.splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 10


def test_one_that_is_installed_while_python_runs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in names()
    package = tmp_path / "late-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[pops.renderers]\nlate = pops.render.registry:names\n")
    assert "late" in names()
    late: object = registry.get("late")
    assert late is names


def test_it_is_listed_with_what_it_can(installed: Path, random_model: Path) -> None:
    done = pops(installed, "renderers", "-m", str(random_model), "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["renderers"]}
    mine = rows["stripes"]
    assert mine["ready"] is True and mine["from"] == "pops-stripes"
    assert (mine["space"], mine["native"], mine["controls"], mine["text"]) == ("random-32", [64, 64], [], False)
    assert rows["swatch"]["from"] == "pops-diffusion" and rows["stable-diffusion"]["text"] is True
    assert rows["retrieval"]["ready"] is False and "needs a library" in rows["retrieval"]["reason"]


def test_it_renders_from_the_command_line(installed: Path, random_model: Path, tmp_path: Path) -> None:
    vectors = torch.linspace(-3, 3, 32)[None]
    Embedding(vectors, "random-32").save(tmp_path / "e.safetensors")
    out, saved = str(tmp_path / "out.png"), str(tmp_path / "e.safetensors")
    done = pops(installed, "run", saved, "-m", str(random_model), "--renderer", "stripes", "-o", out, "--size", "8x32")
    assert done.returncode == 0, done.stderr
    row = np.asarray(Image.open(out))
    expected = (vectors[0, :16].sigmoid() * 255).byte().numpy().repeat(2)
    assert row.shape == (8, 32) and all(np.array_equal(line, expected) for line in row)
    assert read_recipe(out)["loading"]["renderer"] == "stripes"
    told = pops(installed, "run", saved, "-m", str(random_model), "--renderer", "stripes", "-o", out, "--prompt", "red")
    assert told.returncode == 2 and "reads no text" in told.stderr


def test_without_the_package_there_is_no_such_renderer(random_model: Path, tmp_path: Path) -> None:
    done = pops(tmp_path, "renderers", "strips", "-m", str(random_model))
    assert done.returncode == 2 and "unknown renderer 'strips'" in done.stderr and "stripes" not in done.stderr
