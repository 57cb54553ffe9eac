"""`python -m benchmarks mix`: a mix and the stock run call the networks equally often, and the command reports both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import app
from typer.testing import CliRunner

import pops
from benchmarks import mix_time


def test_time_makes_as_many_calls_as_stock(random_model: Path) -> None:
    found = mix_time.measure(pops.load(random_model, device="cpu"), rounds=1, steps=10)
    assert found["network_calls"] == {"mix": 6, "stock": 6}
    assert [row["network_calls"] for row in found["k_max"]] == [3, 6, 10]
    assert found["ratio"] == found["ratios"][0] > 0
    assert "| pops mix | 6 |" in mix_time.table(found)


def test_the_command(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pops.load(random_model, device="cpu")
    monkeypatch.setattr(pops, "load", lambda *args, **kwargs: p)
    done = CliRunner().invoke(app, ["mix", "--rounds", "1", "--json", "--markdown", str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["network_calls"]["mix"] > 0
    assert "| pops mix | " in (tmp_path / "t.md").read_text()
