"""Every command and snippet of the README and the documentation runs, or says why not, and is checked all the same."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import pops
from pages.blocks import ROOT, TRAINING, Block, blocks, commands, first, pages, prose
from pops.cli.main import app

SHELL = ("sh", "bash")
DATA: dict[str, Any] = {"yaml": yaml.safe_load, "json": json.loads, "toml": tomllib.loads}
PHOTOS = {  # the photos that pages name: where they are in examples/
    "teapot.png": "objects", "dog.png": "objects", "hat.png": "objects", "rabbit.png": "objects", "car.png": "objects",
    "tiger.png": "textures", "beach.png": "scenes",
}  # fmt: skip
COPIES = {"pose.png": "poses/teapot-2.png", "a.png": "objects/mug.png", "b.png": "textures/lava.png"}
TREE = "scene:\n  - texturing: [teapot.png, tiger.png]\n  - beach.png\n"
PIP = """#!{python}
import re, sys, tomllib
project = tomllib.load(open({project!r}, "rb"))["project"]
for word in sys.argv[2:]:
    name, _, extras = word.partition("[")
    known = name in ("pops-diffusion", "./examples/renderer") and set(re.findall(r"[\\w-]+", extras)) <= set(
        project["optional-dependencies"])
    if sys.argv[1] != "install" or not (known or word.startswith("-")):
        sys.exit(f"pip: nothing is known of {{word}}")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder: the photos that pages name, and a `pip` that checks names and installs nothing."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name, kind in PHOTOS.items():
        shutil.copy(ROOT / "examples" / kind / name, tmp_path / name)
    for name, path in COPIES.items():
        shutil.copy(ROOT / "examples" / path, tmp_path / name)
    for folder in ("photos", "Pictures/holidays"):
        shutil.copytree(ROOT / "examples" / "textures", tmp_path / folder)
    (tmp_path / "tree.yaml").write_text(TREE)
    tools = tmp_path / ".tools"
    tools.mkdir()
    (tools / "pip").write_text(PIP.format(python=sys.executable, project=str(ROOT / "pyproject.toml")))
    (tools / "pops").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pops "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Runs one block in the current folder."""
    where = f"{page.relative_to(ROOT)}:{block.line}"
    if block.kind in SHELL:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{where}\n{block.text}\n{done.stdout}{done.stderr}"
    elif block.kind == "python":
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)  # noqa: S102  our own pages
    else:
        check(block, where)


def check(block: Block, where: str) -> None:
    """Checks a block that is not run: commands and options exist, Python compiles, expressions and data parse."""
    if block.kind in SHELL:
        for line in commands(block.text):
            for words in _pops_of(shlex.split(line, comments=True)):
                parse_command(words, where)
    elif block.kind == "python":
        compile(block.text, where, "exec")
    elif block.kind == "pops":
        for text in re.split(r"\n\s*\n", block.text.strip()):
            pops.parse(text)
    elif block.kind in DATA:
        DATA[block.kind](block.text)
    else:
        assert block.kind in ("text", "http"), f"{where}: a block needs a language; choose sh, python, pops, text, ..."


def _pops_of(words: list[str]) -> list[list[str]]:
    """The arguments of every `pops` command in a line."""
    found: list[list[str]] = []
    part: list[str] | None = None
    for word in [*words, "&&"]:
        if word in ("&&", ";", "|", ">", "&"):
            found += [part] if part is not None else []
            part = None
        elif word == "pops" and part is None:
            part = []
        elif part is not None:
            part.append(word)
    return found


def parse_command(words: list[str], where: str) -> None:
    """Parses a command line as the program would, without running it."""
    command: Any = get_command(app)
    rest = list(words)
    while hasattr(command, "list_commands"):
        assert rest and command.get_command(None, rest[0]) is not None, f"{where}: no command {' '.join(words)}"
        command = command.get_command(None, rest.pop(0))
    try:
        command.make_context("pops", rest)
    except Exception as e:
        raise AssertionError(f"{where}: pops {' '.join(words)}: {e}") from e


def marked() -> list[Any]:
    """Every page, those that a newcomer reads marked so."""
    marks = {True: (pytest.mark.docs, pytest.mark.first), False: (pytest.mark.docs,)}
    return [pytest.param(page, marks=marks[page in first()], id=str(page.relative_to(ROOT))) for page in pages()]


@pytest.mark.parametrize("page", marked())
def test_the_blocks_of_a_page_run(page: Path, home: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.why is None and page not in TRAINING:
            run(block, page, names)
        else:
            check(block, f"{page.relative_to(ROOT)}:{block.line}")


def test_no_page_is_longer_than_a_reader_is_patient() -> None:
    words = {str(page.relative_to(ROOT)): len(prose(page).split()) for page in (ROOT / "docs").rglob("*.md")}
    assert {name: count for name, count in words.items() if count > 1500 and "made" not in Path(name).parts} == {}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_picture_has_a_text_alternative() -> None:
    bare = [page.name for page in pages() if "![](" in page.read_text(encoding="utf-8")]
    assert bare == []


def test_what_is_not_run_says_why_and_is_the_exception() -> None:
    runnable = [block for page in pages() for block in blocks(page) if block.kind in (*SHELL, "python")]
    left = [block for block in runnable if block.why is not None]
    assert len(runnable) > 50 and len(left) < len(runnable) / 2


def test_a_wrong_option_is_found(tmp_path: Path) -> None:
    for text in ("pops run a.png --no-such-option 3", "ls && pops fly", "pops run a.png -o b.png --seed"):
        with pytest.raises(AssertionError, match="p.md:1"):
            check(Block("sh", text, 1, "for a test"), "p.md:1")
    check(Block("sh", 'pops run "union(a.png, b.png)" --seed 0:4 -o c.png  # four', 1, "for a test"), "p.md:1")
