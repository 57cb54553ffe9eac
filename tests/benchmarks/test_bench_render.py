"""`python -m benchmarks render`: both sides make the same image, and the ratio is paired by round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import app
from benchmarks.render import Row
from typer.testing import CliRunner

import pops
from benchmarks import render as bench
from pops.errors import ConfigError

SMALL: dict[str, Any] = {"dim": 32, "sample_size": 8, "unet": (32, 64), "cross": 16, "head": 8, "movq": (32, 32)}


def test_the_ratio_is_the_median_over_rounds() -> None:
    row = Row("x", (8, 8), 1, 1, pops=[1.0, 2.0, 9.0], bare=[1.0, 4.0, 3.0], apart=0)
    assert row.ratio == 1.0


def test_both_sides_make_the_same_image(random_model: Path) -> None:
    p = pops.load(random_model, device="cpu")
    told: list[tuple[int, int, str]] = []
    report = bench.measure(p, steps=2, rounds=2, decoder=SMALL, on_progress=lambda *now: told.append(now))
    assert [row.name for row in report.rows] == ["stable-diffusion", "kandinsky"]
    for row in report.rows:
        assert row.apart == 0 and len(row.pops) == len(row.bare) == 2 and min(row.pops + row.bare) > 0
    assert [now[0] for now in told] == list(range(1, 7)) and told[-1][1] == 6
    assert "| kandinsky | 16 x 16 | 2 |" in bench.markdown(report)
    first, again = (bench.kandinsky("cpu", SMALL).ours(2, 0) for _ in range(2))
    assert first.tobytes() == again.tobytes(), "the random decoder is the same every time"
    assert len(set(first.tobytes())) > 50, "a flat image would equal anything"
    with pytest.raises(ConfigError, match="steps and rounds"):
        bench.measure(p, steps=0)
    with pytest.raises(ConfigError, match="this measures a Stable Diffusion renderer"):
        bench.measure(pops.load(random_model, renderer="swatch", device="cpu"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MIDDLING", SMALL)
    words = ["render", "--steps", "1", "--rounds", "1", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*words, "--markdown", str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["apart"] for row in rows] == [0, 0] and all(row["ratio"] > 0 for row in rows)
    assert "| stable-diffusion | 128 x 128 | 1 |" in (tmp_path / "t.md").read_text()
