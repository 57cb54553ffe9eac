"""What a run leaves beside its weights: the validation grid, and rows in a tracker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from data.examples import write_examples
from pops.errors import ConfigError, MissingExtra
from pops.training import grids
from pops.training.trackers import TRACKERS, Tracked, check_tracker

QUICK = ("--set", "steps=4", "--set", "batch_size=8", "--set", "eval_every=1")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[str], int]]:
    """What grids are drawn of: columns, rows, number of images."""
    from pops.figures import grid

    seen: list[tuple[list[str], list[str], int]] = []
    draw = grid.grid_figure

    def spy(images: list[Image.Image], columns: list[str], rows: list[str]) -> Image.Image:
        seen.append((list(columns), list(rows), len(images)))
        return draw(images, columns, rows)

    monkeypatch.setattr(grid, "grid_figure", spy)
    return seen


def swatches(monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.models.model import Model
    from pops.render.base import SwatchRenderer

    monkeypatch.setattr(Model, "renderer", lambda self, *a, **k: SwatchRenderer("random-32", (16, 16)))
    monkeypatch.setattr(grids.Grids, "possible", True)


def test_the_grid_shows_the_best(call: Any, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    swatches(monkeypatch)
    monkeypatch.setattr(grids, "SHARE", 1e9)
    write_examples(tmp_path / "pairs", count=40)
    done = call("train", "pairs", "-o", "run", "--model", "$M", "--name", "twin", "--set", "grid=2", *QUICK)
    assert done.exit_code == 0, done.output
    columns = ["object", "texture", "truth", "truth, rendered", "average"]
    columns += [f"guidance {g}, seed {s}" for g in (1, 3) for s in (0, 1)]
    own = json.loads((tmp_path / "run/operator.json").read_text())["spec"]["guidance"]
    expected = [f"guidance {own:g}, seed 0", f"guidance {3.0 if own <= 1 else 1.0:g}, seed 1"]
    assert len(drawn) >= 2, "one for each best, and one in the end"
    for titles, rows, count in drawn:
        assert titles[:5] == columns[:5] and {titles[5], titles[-1]} == set(expected)
        assert len(rows) == 2 and set(rows) <= {"red", "tiger", "green"} and count == 2 * 9
    with Image.open(tmp_path / "run/validation.png") as image:
        assert image.width > image.height > 30


@pytest.mark.parametrize("more", [(), ("--set", "grid=0")])
def test_no_renderer_no_grid_and_none_if_none_is_asked_for(
    call: Any, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    if not more:
        monkeypatch.setattr(grids.Grids, "possible", False)
    write_examples(tmp_path / "pairs", count=40)
    assert call("train", "pairs", "-o", "run", "--model", "$M", "--name", "twin", *QUICK, *more).exit_code == 0
    assert not (tmp_path / "run/validation.png").exists() and (tmp_path / "run/operator.json").is_file()
    assert drawn == []


def test_grids_take_little_of_the_time(call: Any, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    swatches(monkeypatch)
    monkeypatch.setattr(grids, "SHARE", 0.0)  # the first one, and then only the last
    write_examples(tmp_path / "pairs", count=40)
    assert call("train", "pairs", "-o", "run", "--model", "$M", "--name", "twin", *QUICK).exit_code == 0
    assert 1 <= len(drawn) <= 2


class Rows:
    """Stands for trackio: remembers what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []
        self.config: dict[str, Any] = {}
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((values, step))

    def finish(self) -> None:
        self.finished = True


def test_a_tracker_gets_every_row(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, module = Rows(), ModuleType("trackio")
    module.__spec__ = sys.__spec__
    module.init = lambda **how: run  # type: ignore[attr-defined]
    module.config = type("Config", (), {"update": lambda self, v, **_: run.config.update(v)})()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", module)
    write_examples(tmp_path / "pairs", count=40)
    done = call("train", "pairs", "-o", "run", "--model", "$M", "--name", "twin", *QUICK, "--tracker", "trackio")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [step for _, step in run.rows] == [line["step"] for line in lines] and run.finished
    assert run.config["steps"] == 4 and run.config["operator"] == "twin"
    assert run.rows[0][0]["validation/cosine"] == lines[0]["validation"]["cosine"]
    losses = [values["train/loss"] for values, _ in run.rows if "train/loss" in values]
    assert losses and losses == [line["loss"] for line in lines if "loss" in line]


def test_a_tracker_that_is_not_there(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path / "pairs", count=40)
    done = call("train", "pairs", "-o", "run", "--model", "$M", "--tracker", "tensorbord")
    assert done.exit_code == 2 and "unknown tracker 'tensorbord' (did you mean 'tensorboard'?)" in done.stderr
    monkeypatch.setattr("pops.training.trackers.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match="tensorboard is not installed; run: pip install 'pops-diffusion.tensorboard.'"
    ):
        check_tracker("tensorboard")
    with pytest.raises(ConfigError, match="wandb is not installed; run: pip install wandb"):
        check_tracker("wandb")
    assert not (tmp_path / "run").exists()


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    tracked = Tracked("tensorboard", "twin", tmp_path, {"steps": 4, "data": Path("x")})
    tracked.log({"step": 1, "loss": 0.5})
    tracked.finish()
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*")) and set(TRACKERS) >= {"tensorboard"}
