"""pops bench samplers: differences paired by case, what counts as within a point, and the command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import pops
from pops.cli.main import app
from pops.errors import ConfigError
from pops.measure import samplers as bench
from pops.measure.samplers import Figure, Row


def row(*figures, sampler="ddim"):
    return Row(sampler, 8, {"union": {str(i): Figure(0.5, d, e) for i, (d, e) in enumerate(figures)}}, {"union": 0.0})


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ([(0.04, 0.01), (0.0, 0.005)], "surely"),
        ([(0.04, 0.01), (-0.009, 0.01)], "yes"),
        ([(0.04, 0.01), (-0.011, 0.01)], "open"),
        ([(0.04, 0.01), (-0.011, 0.0)], "no"),
        ([(-0.05, 0.02), (0.1, 0.0)], "no"),
    ],
)
def test_within_a_point_of_the_reference(figures, verdict):
    assert row(*figures).verdict == verdict
    assert row(*figures).worst.difference == min(d for d, _ in figures)
    assert row(*figures).furthest == max(abs(d) for d, _ in figures)


def test_differences_are_paired_by_case():
    """If all cases fall by the same amount, the difference has no error, however much the cases themselves differ."""
    reference = {"cosine": torch.tensor([0.1, 0.5, 0.9])}
    figure = bench._figures({"cosine": reference["cosine"] - 0.02}, reference)["cosine"]
    assert figure.difference == pytest.approx(-0.02) and figure.error == pytest.approx(0, abs=1e-7)
    change = torch.tensor([0.0, 0.3, 0.0])
    figure = bench._figures({"cosine": reference["cosine"] + change}, reference)["cosine"]
    assert figure.error == pytest.approx(float(change.std()) / 3**0.5)


@pytest.fixture(scope="module")
def tiny():
    return pops.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def report(tiny):
    return bench.measure(
        tiny, operators=["instruct"], samplers=["dpm++2m"], steps=[2, 8], count=6, draws=2, render=False
    )


def test_the_report_has_the_reference_first_and_every_pair(report):
    assert [(r.sampler, r.steps) for r in report.rows] == [("ancestral", 25), ("dpm++2m", 2), ("dpm++2m", 8)]
    first = report.rows[0]
    assert all(f.difference == f.error == 0 for f in first.figures["instruct"].values()) and first.verdict == "surely"
    assert all(set(r.figures["instruct"]) == {"cosine", "recall_at_1", "beats_average"} for r in report.rows)
    assert all(0 < r.spread["instruct"] < 0.2 for r in report.rows)


def test_the_figures_are_those_of_bench_toybox(tiny, report):
    from pops.measure import operators as toybox

    draws: list[Any] = [
        toybox.measure(tiny, operators=["instruct"], count=6, seed=0, render=False, steps=8, sampler="dpm++2m"),
        bench.measure(tiny, operators=["instruct"], samplers=["dpm++2m"], steps=[8], count=6, draws=1, render=False),
    ]
    there, here = draws[0].operators["instruct"], draws[1].rows[1].figures["instruct"]
    assert {key: there[key] for key in here} == pytest.approx({key: f.value for key, f in here.items()}, abs=1e-6)


def test_the_table(report):
    table = bench.markdown(report)
    assert table.count("\n|") == 5 and "| the reference |" in table and "| dpm++2m | 8 |" in table
    assert all(len(line) <= 120 for line in table.splitlines()[:6])


def test_the_command(tmp_path: Path) -> None:
    words = (
        "bench samplers --no-render -n 2 --operators scene --samplers ddim --steps-list 1 --draws 1 --json --markdown"
    )
    done = CliRunner().invoke(app, [*words.split(), str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert [r["sampler"] for r in said["rows"]] == ["ancestral", "ddim"] and said["draws"] == 1
    assert "| ddim | 1 |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--samplers dpm2m", "unknown sampler 'dpm2m' (did you mean 'dpm++2m'?); choose from ancestral, ddim,"),
        ("--operators unoin", "did you mean 'union'"),
        ("--steps-list 4,x", "--steps-list takes whole numbers from 1 to 1000"),
        ("--steps-list 0", "--steps-list takes whole numbers"),
        ("--steps-list ,", "--steps-list is empty"),
        ("--samplers ,", "--samplers is empty"),
    ],
)
def test_mistakes(words: str, says: str) -> None:
    done = CliRunner().invoke(app, ["bench", "samplers", "--no-render", *words.split()])
    assert done.exit_code == 2 and says in done.stderr


def test_draws_must_be_one_at_least(tiny):
    with pytest.raises(ConfigError, match="draws must be at least 1, got 0"):
        bench.measure(tiny, draws=0)
