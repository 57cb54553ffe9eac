"""pops bench control: cases of toybox, and the report on a random model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import pops
from folders import write_controlnet, write_estimator
from pops.errors import ConfigError
from pops.measure import control as bench
from pops.operators.checkpoint import save_operator
from pops.operators.spec import BUILTIN
from pops.prior.transformer import PriorModel
from pops.toybox.silhouette import Silhouette, iou
from pops.toybox.world import held_out


def test_a_case_is_held_out_and_its_pose_differs() -> None:
    with torch.no_grad():
        case, again = bench.draw_case(5), bench.draw_case(5)
    assert torch.equal(case.object, again.object) and torch.equal(case.pose, again.pose)
    assert held_out("material", case.answer["object"], case.answer["material"])
    assert 0.02 < case.silhouette.float().mean() < 0.6
    read = Silhouette.load().read(torch.stack([case.pose, case.object]))
    exact = case.silhouette.expand(2, -1, -1)
    of_pose, of_object = iou(read, exact).tolist()
    assert of_pose > 0.7, "C's own silhouette is read from its pixels"
    assert of_object < of_pose - 0.15, "the operand stands elsewhere"


@pytest.fixture(scope="module")
def model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlled") / "model"
    shutil.copytree(random_model, folder)
    write_controlnet(folder / "renderer" / "controlnets" / "depth", folder / "renderer")
    write_estimator(folder / "depth_estimator")
    base = PriorModel.load(folder)
    key = "proj_in.weight"
    change = {f"{key}.delta": torch.full_like(base.transformer.state_dict()[key], 0.1)}
    save_operator(folder / "operators" / "texturing", BUILTIN["texturing"], change, base=base, space="random-32")
    return folder


def test_the_report_and_the_command(model: Path, tmp_path: Path) -> None:
    from pops.cli.main import app

    table = tmp_path / "control.md"
    words = ["bench", "control", "--model", str(model), "--count", "2", "--render-steps", "2", "--json"]
    done = CliRunner().invoke(app, [*words, "--markdown", str(table)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["count"], report["seed"]) == (2, 0) and report["ceiling"] > 0.7
    for name in ("free", "controlled"):
        assert all(0 <= report[name][k] <= 1 for k in ("iou", "good", "object", "material"))
    assert "| with C's depth | " in table.read_text()


def test_a_renderer_without_control(random_model: Path) -> None:
    p = pops.load(random_model, device="cpu")
    with pytest.raises(ConfigError, match="has no depth control"):
        bench.measure(p, count=1)
    with pytest.raises(ConfigError, match="count must be 1 or more"):
        bench.measure(p, count=0)
