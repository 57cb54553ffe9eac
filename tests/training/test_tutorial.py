"""The commands of the tutorial and of docs/training.md, as they stand there, on fewer examples and for a few steps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pages.blocks import TRAINING, blocks
from pops.cli.main import app


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in (block for page in TRAINING for block in blocks(page) if block.why is None):
        kind, text = block.kind, block.text
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
    assert ran == ["data", "train", "train", "run", "evaluate", "train"]
    for name in ("gilded-operator/operator.json", "gilded.html", "out.png", "other-operator/operator.json"):
        assert Path(name).is_file(), name
