"""Weights go to a lent machine and come back in files that are small enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from recipes.tiny import carry, settings
from recipes.tiny.carry import collect, pack

SCRIPT = Path(carry.__file__).with_name("gpu.sh")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A stage's checkpoint at home, with a picture and a log."""
    home = tmp_path / "home"
    monkeypatch.setattr(settings, "WORK", home)
    (home / "net").mkdir(parents=True)
    torch.manual_seed(0)
    average = {f"w{k}": torch.randn(300, 300) for k in range(5)} | {"count": torch.tensor(7)}
    state = {"module": average, "average": average, "optimizer": {}, "step": 12, "seconds": 3.5}
    torch.save(state, home / "net" / "checkpoint.pt")
    Image.new("RGB", (8, 8), "red").save(home / "net" / "grid.png")
    (home / "net" / "log.jsonl").write_text('{"step": 12}\n')
    return state


def test_packed_and_collected_it_is_the_same_to_half_precision(
    state: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pack("net", tmp_path / "out", limit=500_000)
    assert [f.name for f in files] == ["net-part-0.safetensors", "net-part-1.safetensors", "net-part-2.safetensors",
                                       "net-grid.jpg", "net-log.txt"]  # fmt: skip
    assert all(f.stat().st_size <= 500_000 for f in files)
    monkeypatch.setattr(settings, "WORK", tmp_path / "there")
    assert collect(tmp_path / "out") == ["net"]
    back = torch.load(tmp_path / "there" / "net" / "checkpoint.pt", weights_only=True)
    assert (back["step"], back["seconds"]) == (12, 3.5)
    for key, value in state["average"].items():  # type: ignore[attr-defined]
        assert back["average"][key].dtype == value.dtype
        torch.testing.assert_close(back["average"][key], value, rtol=1e-3, atol=1e-3)
    assert collect(tmp_path / "out", anew=True) == ["net"]
    assert torch.load(tmp_path / "there" / "net" / "checkpoint.pt", weights_only=True)["step"] == 0
    assert (tmp_path / "there" / "net" / "checkpoint.before.pt").exists()


def test_a_missing_part_is_told(state: dict[str, object], tmp_path: Path) -> None:
    pack("net", tmp_path / "out", limit=500_000)[1].unlink()
    with pytest.raises(SystemExit, match="2 of 3 parts"):
        collect(tmp_path / "out")


def test_the_script_collects_and_says_how_it_is_used(state: dict[str, object], tmp_path: Path) -> None:
    pack("net", tmp_path / "out")
    env = {**os.environ, "PYTHON": sys.executable, "POPS_TINY_WORK": str(tmp_path / "there")}
    done = subprocess.run([SCRIPT, "collect", tmp_path / "out"], env=env, capture_output=True, text=True, check=True)
    assert "collected net" in done.stdout
    assert (tmp_path / "there" / "net" / "checkpoint.pt").exists()
    lost = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert lost.returncode == 2
    assert "gpu.sh diffusion MINUTES" in lost.stdout
