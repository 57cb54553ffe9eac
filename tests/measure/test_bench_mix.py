"""pops bench mix: the pairs it draws, its figures, table and curves, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pops
from pops.errors import ConfigError
from pops.measure import mix as bench
from pops.measure import mix_figures
from pops.toybox.oracle import HEADS
from pops.toybox.world import held_out


@pytest.fixture(scope="module")
def pairs() -> bench.Pairs:
    return bench.draw_pairs(6, 3)


def test_pairs_are_held_out_and_the_same_for_a_seed(pairs: bench.Pairs) -> None:
    from pops.toybox.pairs import family

    again = bench.draw_pairs(2, 3)
    assert torch.equal(again.pictures, pairs.pictures[:2]) and again.seeds == pairs.seeds[:2]
    assert pairs.kinds == ["object", "material"] * 3
    assert pairs.seeds == list(range(3, 9))
    for number, kind, name, text in zip(pairs.seeds, pairs.kinds, pairs.names, pairs.texts, strict=True):
        drawn = family(number, "test", "union" if kind == "object" else "texturing")
        assert held_out(kind, drawn.base.objects[0].category, name) and name in HEADS[kind] and name in text
    share = pairs.masks.float().mean((1, 2))
    assert share.min() > 0.05 and share.max() < 0.8


@pytest.fixture(scope="module")
def report(random_model: Path) -> bench.Report:
    p = pops.load(random_model, device="cpu")
    how: dict[str, Any] = {"steps": 4, "size": 24}
    return bench.measure(p, count=2, nus=(0, 1), strengths=(-1, 1), how=how)


def test_the_report(report: bench.Report) -> None:
    json.dumps(report.__dict__)
    assert report.ceiling["true_pictures"] > 0.8 and report.layouts["all"]["iou"] == report.ceiling["true_pictures"]
    assert [row["value"] for row in report.curves["nu"]] == [0, 1] and report.point["all"] is None
    for rows in report.curves.values():
        for row in rows:
            assert all(0 <= v <= 1 for kind in ("all", "object", "material") for v in row[kind].values())
            both = [(row["object"][name] + row["material"][name]) / 2 for name in ("iou", "probability", "right")]
            assert both == pytest.approx([row["all"][name] for name in ("iou", "probability", "right")])
    # nu's default on the curve over strength, and the model's own guidance
    assert report.settings["nu"] == 0.9 and report.settings["guidance"] == 2.0


def test_curves_are_judged() -> None:
    def rows(*values: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"all": {"iou": a, "probability": b, "right": b}} for a, b in values]

    assert bench._monotone(rows((0.9, 0.1), (0.7, 0.5))) == {"iou_falls": True, "probability_rises": True}
    assert bench._monotone(rows((0.9, 0.5), (0.95, 0.4))) == {"iou_falls": False, "probability_rises": False}
    assert bench._enough({"iou": 0.6, "right": 0.6}) and not bench._enough({"iou": 0.9, "right": 0.5})


def test_table_and_plot(report: bench.Report) -> None:
    table = mix_figures.markdown(report)
    assert "| nu | all: IoU" in table and "| -1 | " in table and "(object): none" in table
    picture = mix_figures.plot(report)
    assert picture.size == (1020, 380) and len(picture.getcolors(1 << 20) or ()) > 50


def test_bad_requests(random_model: Path) -> None:
    p = pops.load(random_model, device="cpu")
    with pytest.raises(ConfigError, match="count must be at least 2"):
        bench.measure(p, count=1)
    with pytest.raises(ConfigError, match="nu must be from 0"):
        bench.measure(p, count=2, nus=(0, 2))


def test_the_command(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.cli.main import app

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["bench", "mix", "--model", str(random_model), "--count", "2", *words])

    done = run("--steps", "2", "--nu", "0,1", "--strength", "1", "--json", "--markdown", "m.md", "--plot", "p.png")
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["curves"]) == {"nu", "strength"} and "| nu |" in Path("m.md").read_text()
    with Image.open("p.png") as picture:
        assert picture.size == (1020, 380)
    for words, says in {
        ("--nu", "1,0"): "--nu takes rising numbers",
        ("--strength", "x"): "--strength takes rising numbers",
        ("--plot", "p.txt"): "images are written as",
    }.items():
        failed = run(*words)
        assert failed.exit_code == 2 and says in failed.stderr, failed.output
