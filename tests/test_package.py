"""The package: its page, its extras, its pins and hashes, and the scripts beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TORCHS_OWN = re.compile(r"torch|triton|cuda-.*|nvidia-.*")


def loaded(path: str) -> ModuleType:
    """The module of a file outside the package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return loaded("hatch_build.py")


def metadata(**environment: str) -> dict[str, Any]:
    """What the build says of the package."""
    env = {k: v for k, v in os.environ.items() if k != "POPS_REPOSITORY"} | environment
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_page_has_absolute_links_only(build: ModuleType) -> None:
    said = metadata(POPS_REPOSITORY="https://host.example/me/pops/")
    page = said["readme"]["text"]
    assert build.LINK.search(page) is None
    tag = f"v{PROJECT['version']}"
    assert f"![union](https://host.example/me/pops/raw/{tag}/docs/pictures/union.jpg)" in page
    assert f"[commands](https://host.example/me/pops/blob/{tag}/docs/cli.md)" in page
    assert said["urls"]["Homepage"] == "https://host.example/me/pops"


def test_without_an_address_the_page_has_no_link_that_leads_nowhere(build: ModuleType) -> None:
    said = metadata()
    page = said["readme"]["text"]
    assert build.LINK.search(page) is None and "docs/pictures/union.jpg" not in page
    assert "commands, the language" in page and "https://arxiv.org/abs/2406.01300" in page and "urls" not in said


def test_what_is_a_relative_link(build: ModuleType) -> None:
    text = "[a](docs/a.md) ![b](b.png) [c](https://x.y/c) [d](#here) [e](mailto:a@b.c) a[0](x)"
    assert [link["path"] for link in build.LINK.finditer(text)] == ["docs/a.md", "b.png", "x"]


def test_every_relative_link_of_the_documents_leads_to_a_file(build: ModuleType) -> None:
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + [
        *ROOT.glob("docs/**/*.md")
    ]
    links = [(path, link["path"]) for path in documents for link in build.LINK.finditer(path.read_text("utf-8"))]
    assert len(links) > 30
    broken = [(p.name, to) for p, to in links if not (p.parent / to.split("#")[0]).exists()]
    assert [(name, to) for name, to in broken if "made" not in Path(to).parts] == []  # those the site makes


def test_every_extra_is_explained_and_brings_something() -> None:
    base = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for extra, lines in PROJECT["optional-dependencies"].items():
        brought = {canonicalize_name(Requirement(line).name) for line in lines}
        assert brought - base == brought, f"[{extra}] brings what everybody has"
        assert re.search(rf"`{extra}`", README), f"README's Install section does not say what [{extra}] is for"


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_lock_has_the_pinned_versions_with_hashes_and_leaves_torch_out() -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8").strip())
    locked = {canonicalize_name(e.split("==")[0]): re.split(r"[ ;\\]", e.split("==")[1])[0] for e in entries}
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert [name for name in locked if TORCHS_OWN.fullmatch(name)] == []
    assert {n: v for n, v in locked.items() if pins().get(n, v) != v} == {}, "run: make lock"
    assert [name for name in pins() if name not in locked and name not in ("torch", "ray")] == [], "run: make lock"


def test_every_requirement_is_pinned_within_its_range() -> None:
    lines = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for line in lines:
        one = Requirement(line)
        assert one.specifier.contains(pins()[canonicalize_name(one.name)]), f"constraints.txt does not fit {line}"


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_the_photo_grid_refuses_a_folder_without_photos(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo")
    script = ROOT / "docs" / "photo_grid.py"
    done = subprocess.run(
        [sys.executable, str(script), folder], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(rf"error: .*{folder}.*photos", done.stderr)


def test_the_photo_grid_writes_to_a_file_that_git_ignores() -> None:
    grid = loaded("docs/photo_grid.py")
    ignored = (ROOT / ".gitignore").read_text().split()
    assert f"/{grid.OUT.relative_to(ROOT).parts[0]}/" in ignored
