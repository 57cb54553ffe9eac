"""The benchmark of composed image search: its queries, its library, its figures, and one small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pops.cli.main import app
from pops.measure import retrieval
from pops.toybox.world import held_out, held_out_of

pytest.importorskip("lancedb")


def test_the_truth_is_in_the_library_among_its_like_and_no_operand_is() -> None:
    for k in range(6):
        f = retrieval.query(k, seed=0)
        listed = retrieval.specs(k, seed=0, count=40)
        truth = listed[0]
        thing = truth.objects[0]
        assert truth == f.textured and held_out("material", thing.category, thing.material.name)
        assert held_out_of(truth), "training never saw it"
        assert listed.count(truth) == 1 and f.studio not in listed and f.empty not in listed
        shared = [
            (
                s.objects[0].category == thing.category,
                s.objects[0].material == thing.material,
                s.scene == truth.scene,
            )
            for s in listed[1:]
        ]
        assert {sum(x) for x in shared} >= {0, 1, 2} and all(s.scene != "studio" for s in listed)
    assert retrieval.specs(3, seed=0, count=5) == retrieval.specs(3, seed=0, count=40)[:5]


def test_figures() -> None:
    labels = {
        "t": {"object": "dog", "material": "gold", "scene": "beach"},
        "u": {"object": "dog", "material": "gold", "scene": "snow"},
        "v": {"object": "cat", "material": "ice", "scene": "beach"},
        "w": {"object": "cat", "material": "ice", "scene": "snow"},
    }
    row = retrieval.figures([["t", "w"], ["v", "u"]], ["t", "t"], labels)
    assert (row["recall_at_1"], row["recall_at_10"]) == (0.5, 0.5)
    assert row["in_top_10"] == {"object": 1.0, "material": 1.0, "scene": 1.0, "all": 0.5}
    assert row["of_top_10"] == {"object": 0.5, "material": 0.5, "scene": 0.5, "all": 0.25}


def test_a_small_run_of_the_command_and_its_cache(tmp_path: Path) -> None:
    words = ["bench", "retrieval", "--count", "6", "--queries", "2", "--cache", str(tmp_path / "cache"), "--json"]
    done = CliRunner().invoke(app, [*words, "--markdown", str(tmp_path / "table.md")])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["photos"], report["queries"]) == (6, 2)
    assert report["methods"]["result"]["recall_at_10"] == 1.0, "all six are among the ten"
    assert set(report["methods"]) == {"result", "average", "operand a"}
    assert "| result |" in (tmp_path / "table.md").read_text()
    pictures = sorted((tmp_path / "cache" / "6-2-0").rglob("*.png"))
    pictures[4].unlink()
    stamps = [p.stat().st_mtime_ns for p in pictures[:3]]
    retrieval.draw_library(tmp_path / "cache" / "6-2-0", 6, 2, 0)
    assert len(pictures) == 6 and pictures[4].is_file()
    assert [p.stat().st_mtime_ns for p in pictures[:3]] == stamps, "what is there is not drawn again"
    few = CliRunner().invoke(app, ["bench", "retrieval", "--count", "3", "--queries", "2"])
    assert few.exit_code == 2 and "need at least 4 images" in few.stderr
