"""Making examples: exact, the same bytes whatever stops the run, filters counted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pops.data import Folder
from pops.data.check import check_folder
from pops.data.make import make_examples
from pops.data.teachers import Rejected, Sample, teacher
from pops.errors import ConfigError, PopsError
from pops.parts import Shard


class Swatches:
    """A teacher that is quick: flat colours; it refuses some seeds, and every one in a split."""

    name, operators = "swatches", ("texturing",)

    def __init__(self, refused: str = "", wait: float = 0.0) -> None:
        self.refused, self.wait = refused, wait

    def about(self, operator: str) -> Mapping[str, Any]:
        return {"licence": "CC0-1.0", "models": {}}

    def make(self, operator: str, seed: int, split: str) -> Sequence[Sample]:
        time.sleep(self.wait)
        if seed % 3 == 0 or split == self.refused:
            raise Rejected("score" if seed % 2 else "area")
        images = [Image.new("RGB", (8, 8), ((seed >> k) % 256, k, 9)) for k in range(3)]
        sample = Sample({"object": images[0], "texture": images[1]}, {"word": "red"}, images[2])
        return [sample] * (1 + (seed % 7 == 0))


def digests(folder: Path) -> dict[str, str]:
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_items_filters_and_the_card(tmp_path: Path) -> None:
    made = make_examples("texturing", tmp_path / "f", Swatches(), count=40)
    assert len(made.items) == made.new == 40 and made.failed == 0 and set(made.rejected) == {"score", "area"}
    folder = Folder.read(tmp_path / "f")
    assert len(folder) == len(made.rows) > 40 and [r.name for r in folder.roles] == ["object", "texture", "word"]
    tests = {str(e.extra.get("group", e.id)) for e in folder.rows("test")}
    assert tests == {f"{n:07}" for n in (0, 10, 20, 30)} and folder.counts["validation"] >= 4
    text = (tmp_path / "f/README.md").read_text()
    assert f"| score | {made.rejected['score']} |" in text and "license: cc0-1.0" in text
    assert f"{made.rejected.total() + 40} attempts, {made.rejected.total()} refused, 0 items given up" in text


def test_items_that_no_attempt_makes(tmp_path: Path) -> None:
    made = make_examples("texturing", tmp_path / "f", Swatches("test"), count=20, tries=5)
    assert made.failed == 2 and len(made.items) == 20 and Folder.read(tmp_path / "f").counts["test"] == 0
    assert "2 items given up after 5" in (tmp_path / "f/README.md").read_text()
    with pytest.raises(PopsError, match="no item passed the filters .(score|area): "):
        make_examples("texturing", tmp_path / "g", Swatches("test"), count=1)


def test_more_items_and_the_same_bytes(tmp_path: Path) -> None:
    make_examples("texturing", tmp_path / "whole", Swatches(), count=30)
    make_examples("texturing", tmp_path / "parts", Swatches(), count=12)
    ledger = tmp_path / "parts/ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-9])  # as a stop in the middle of a line leaves it
    assert make_examples("texturing", tmp_path / "parts", Swatches(), count=30).new == 19
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert make_examples("texturing", tmp_path / "parts", Swatches(), count=30).new == 0


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from data.test_make import Swatches
from pops.data.make import make_examples
make_examples("texturing", {out!r}, Swatches(wait=0.01), count=60)
"""


def test_killed_again_and_again(tmp_path: Path) -> None:
    make_examples("texturing", tmp_path / "whole", Swatches(), count=60)
    script = KILLED.format(tests=str(Path(__file__).parent.parent), out=str(tmp_path / "f"))
    kills = 0
    for attempt in range(100):
        run = subprocess.Popen([sys.executable, "-c", script])
        ledger = tmp_path / "f/ledger.jsonl"
        before = ledger.stat().st_size if ledger.is_file() else 0
        while run.poll() is None and (not ledger.is_file() or ledger.stat().st_size == before):
            time.sleep(0.002)
        time.sleep(0.013 * (attempt % 7))
        if run.poll() is None and kills < 6:
            os.kill(run.pid, signal.SIGKILL)
            kills += 1
        if run.wait() == 0:
            break
    assert kills >= 3 and digests(tmp_path / "f") == digests(tmp_path / "whole")


# The long form: 200 items of toybox, 20 kills (a few minutes).
LONG = os.environ.get("POPS_LONG_TESTS") == "1"


@pytest.mark.parametrize("shards", [1, 3])
def test_toybox_killed_again_and_again(tmp_path: Path, shards: int) -> None:
    """The command itself, in one process or in shares that run at once, killed at any moment."""
    items, kills, size = (200, 20, 32) if LONG else (12, 3, 16)
    command = [sys.executable, "-m", "pops", "data", "make", "scene", "--count", str(items), "--size", str(size), "-q"]
    make_examples("scene", tmp_path / "whole", teacher("toybox", size=size), count=items)
    whole, out = digests(tmp_path / "whole"), tmp_path / "f"

    def start(i: int) -> subprocess.Popen[bytes]:
        share = ["--shard", f"{i + 1}/{shards}"] if shards > 1 else []
        return subprocess.Popen([*command, "-o", str(out), *share])

    def done() -> int:
        found = 0
        for path in (out / "ledger.jsonl", *(out / f".shards/{i + 1}-of-{shards}/ledger.jsonl" for i in range(shards))):
            with suppress(FileNotFoundError):
                found += path.read_bytes().count(b"\n")
        return found

    runs, killed, before = [start(i) for i in range(shards)], 0, 0
    while any(run.poll() is None for run in runs):
        if killed < kills and done() >= before + (items // (kills + 2) or 1):
            victim = next(run for run in runs if run.poll() is None)
            place = runs.index(victim)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            killed, before = killed + 1, done()
            runs[place] = start(place)
        time.sleep(0.01)
    assert [run.returncode for run in runs] == [0] * shards
    assert killed == kills and digests(out) == whole
    assert len(Folder.read(out)) == items


def test_shares_make_the_same_folder(tmp_path: Path) -> None:
    make_examples("texturing", tmp_path / "whole", Swatches(), count=30)
    make_examples("texturing", tmp_path / "f", Swatches(), count=7)  # what was there before
    for number in (3, 1):
        made = make_examples("texturing", tmp_path / "f", Swatches(), count=30, shard=Shard(number, 3))
        assert made.new in (7, 8) and not (tmp_path / "f/.shards").joinpath("0-of-3").exists()
    assert made.waiting == ["2/3"]
    again = make_examples("texturing", tmp_path / "f", Swatches(), count=30, shard=Shard(1, 3))
    assert again.new == 0 and again.waiting == ["2/3"]
    with pytest.raises(ConfigError, match="was made with seed 0, not 1"):
        make_examples("texturing", tmp_path / "f", Swatches(), count=30, seed=1, shard=Shard(2, 3))
    made = make_examples("texturing", tmp_path / "f", Swatches(), count=30, shard=Shard(2, 3))
    assert len(made.items) == 30 and made.waiting == [] and digests(tmp_path / "f") == digests(tmp_path / "whole")
    assert make_examples("texturing", tmp_path / "f", Swatches(), count=30, shard=Shard(2, 3)).new == 0
    assert digests(tmp_path / "f") == digests(tmp_path / "whole")


def test_ray_makes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    command = ["data", "make", "scene", "--count", "12", "--size", "16", "-q", "-o"]
    make_examples("scene", tmp_path / "whole", teacher("toybox", size=16), count=12)
    words = [sys.executable, "-m", "pops", *command, str(tmp_path / "f"), "--ray", "local", "--workers", "2"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "f") == digests(tmp_path / "whole")


def test_without_ray_there_is_one_line(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call("data", "make", "scene", "-o", "f", "--ray", "local")
    assert done.exit_code == 2 and "ray is not installed; run: pip install 'pops-diffusion[ray]'" in done.stderr
    assert not Path("f").exists()


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make_examples("texturing", tmp_path / "f", Swatches(), count=2)
    with pytest.raises(ConfigError, match="was made with seed 0, not 1; give the same, or choose a new folder"):
        make_examples("texturing", tmp_path / "f", Swatches(), count=2, seed=1)
    with pytest.raises(ConfigError, match="makes no 'textring' .did you mean 'texturing'"):
        make_examples("textring", tmp_path / "f", Swatches(), count=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds other files, such as a.txt"):
        make_examples("texturing", tmp_path / "other", Swatches(), count=2)
    ledger = tmp_path / "f/ledger.jsonl"
    ledger.write_text(ledger.read_text() + "[]\n")
    with pytest.raises(ConfigError, match="ledger.jsonl, line 4 is damaged"):
        make_examples("texturing", tmp_path / "f", Swatches(), count=2)
    with pytest.raises(ConfigError, match="unknown teacher 'toybx' .did you mean 'toybox'"):
        teacher("toybx")


@pytest.mark.parametrize("operator", ["texturing", "union", "scene", "instruct", "clothes"])
def test_toybox_is_exact_and_holds_out(operator: str, tmp_path: Path) -> None:
    from pops.toybox.draw import draw
    from pops.toybox.pairs import triplet
    from pops.toybox.world import held_out_of

    made = make_examples(operator, tmp_path / "f", teacher("toybox", size=32), count=2)
    for item, split in zip(made.items, ("test", "train"), strict=True):
        row = item.rows[0]
        true = triplet(operator, row["seed"] % 2**39, split)
        with Image.open(tmp_path / "f" / row["target_file_name"]) as image:
            assert image.tobytes() == draw(true.result, 32).permute(1, 2, 0).numpy().tobytes()
        assert bool(held_out_of(true.result)) is (split == "test")
        assert row["split"] == split
    if operator == "clothes":
        assert len(made.rows) == 8  # each item in four materials
        drawn = [[name for name, file in row.items() if name.startswith("garment") and file] for row in made.rows]
        assert all(names == [f"garment_{k + 1}_file_name" for k in range(len(names))] for names in drawn)
    checked = check_folder(tmp_path / "f", too_long=lambda texts: [False] * len(texts))
    assert checked.faults == []


def test_the_command(call: Any) -> None:
    done = call("data", "make", "instruct", "-o", "f", "--count", "2", "--size", "16", "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["items"] == told["examples"] == told["new"] == 2 and told["rejected"] == {}
    assert [r.name for r in Folder.read("f").roles] == ["object", "word"]
    done = call("data", "make", "cloths", "-o", "g")
    assert done.exit_code == 2 and "the teacher toybox makes no 'cloths' (did you mean 'clothes'?)" in done.stderr
    done = call("data", "make", "union", "-o", "g", "--size", "17")
    assert done.exit_code == 2 and "must be even" in done.stderr
