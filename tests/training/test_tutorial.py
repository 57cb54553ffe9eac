"""The tutorial's own commands, as they stand in docs/training.md, on fewer examples and for a few steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pops.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def test_the_tutorial_runs(blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for kind, text in blocks:
        if kind == "python":
            assert "range(30)" in text and "size=96" in text
            exec(text.replace("range(30)", "range(14)").replace("size=96", "size=32"), {})  # noqa: S102  our own page
        elif kind == "yaml":
            Path("spec.yaml").write_text(text.replace("shots: 50", "shots: 4"), encoding="utf-8")
        elif kind == "sh":
            for line in text.splitlines():
                program, *words = shlex.split(line)
                assert program == "pops"
                if words[0] == "train":
                    words += ["--set", "steps=4", "--set", "batch_size=4", "--set", "accumulate=1"]
                if words[0] == "run":
                    words += ["--render-steps", "1"]
                done = CliRunner().invoke(app, words)
                assert done.exit_code == 0, (line, done.output)
                ran.append(words[0])
    assert ran == ["data", "train", "train", "evaluate", "run", "train"]
    for name in ("gilded-operator/operator.json", "gilded.html", "out.png", "other-operator/operator.json"):
        assert Path(name).is_file(), name
