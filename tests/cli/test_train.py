"""pops train and pops evaluate: from a folder of examples to an operator that runs, and to figures of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from examples import write_examples
from pops.data import Folder, Shards
from pops.embedding import Embedding
from pops.operators.checkpoint import load_spec

QUICK = ("--set", "steps=4", "--set", "batch_size=8", "--set", "eval_every=2", "--set", "save_every=1")


@pytest.mark.parametrize(
    ("roles", "word", "expression"),
    [
        (("object",), False, "twin(a.png)"),
        (("object", "texture"), False, "twin(a.png, b.png)"),
        (("one", "two", "three"), False, "twin(a.png, b.png, c.png)"),
        (("object",), True, 'twin(a.png, "red")'),
        (("object", "texture"), True, 'twin(a.png, b.png, "red")'),
    ],
)
def test_a_folder_becomes_an_operator_that_runs(
    call: Any, tmp_path: Path, roles: tuple[str, ...], word: bool, expression: str
) -> None:
    write_examples(tmp_path / "twin", roles=roles, word=word)
    done = call("train", "twin", "-o", "run", "--model", "$M", "--json", *QUICK)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["operator"] == "twin" and data["steps"] == 4 and data["samples"] + data["held_out"] < 40
    assert data["start"] in ("texturing", "union", "scene", "instruct", "clothes") and "%" in data["verdict"]
    spec = load_spec(tmp_path / "run")
    assert [r.name for r in spec.roles] == [*roles, *(["word"] if word else [])]
    made = call("run", expression, "--model", "$M", "--operator", "twin=run", "--save-embedding", "e.safetensors")
    assert made.exit_code == 0, made.output
    assert Embedding.load(tmp_path / "e.safetensors").vectors.shape == (1, 32)

    judged = call("evaluate", "run", "--data", "twin", "--model", "$M", "--json")
    assert judged.exit_code == 0, judged.output
    figures = json.loads(judged.stdout)
    assert {"cosine", "recall_at_1", "beats_average", "cosine_error", "baselines", "audit"} <= set(figures)
    assert all(b["cosine_error"] > 0 and b["recall_at_1_error"] > 0 for b in figures["baselines"].values())
    assert {"average", "operand_a"} <= set(figures["baselines"]) and ("text" in figures["baselines"]) == word
    assert figures["about"]["split"] == "test" and figures["about"]["count"] == len(Folder.read("twin").rows("test"))


def test_evaluate_takes_a_name_and_writes_a_page(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    done = call("evaluate", "texturing", "--data", "pairs", "--model", "$M", "--report", "page.html", "--pictures", "2")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    assert "learnt" in done.stdout and "average" in done.stdout
    assert page.count("data:image/jpeg;base64,") >= 6 and "http" not in page.replace("http-equiv", "")
    assert "IP-Adapter with all pictures" in page and "image of the result, of the first 2" in page
    how = ("--data", "pairs", "--model", "$M", "--pictures", "2", "--json")
    figures = json.loads(call("evaluate", "texturing", *how, "--report", "again.html").stdout)
    drawn = figures["rendered"]
    assert set(drawn) == {"count", "result", "average", "truth", "ip_adapter"} and drawn["count"] == 2
    assert all(
        -1 <= drawn[name]["cosine"] <= 1 and drawn[name]["recall_at_1_error"] > 0 for name in drawn if name != "count"
    )
    assert drawn["ip_adapter"]["cosine"] != drawn["average"]["cosine"]  # not the average, but both
    assert "rendered" not in json.loads(call("evaluate", "texturing", *how).stdout)  # no pictures are asked for
    wrong = call("evaluate", "instruct", "--data", "pairs", "--model", "$M")
    assert wrong.exit_code == 2 and "instruct takes object (image), word (text)" in wrong.stderr


def test_encoded_examples_train_alike(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    assert call("data", "encode", "pairs", "-o", "pairs.shards", "--model", "$M").exit_code == 0
    for data, out in (("pairs", "a"), ("pairs.shards", "b")):
        done = call("train", data, "-o", out, "--model", "$M", "--name", "twin", "--from", "union", *QUICK)
        assert done.exit_code == 0, done.output
    one, two = (load_file(tmp_path / out / "adapter.safetensors") for out in "ab")
    assert set(one) == set(two) and all(bool((one[k] == two[k]).all()) for k in one)


def test_a_killed_run_goes_on_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    command = ["train", str(tmp_path / "pairs"), "--model", str(folder), *QUICK]
    killed = (
        "import os, signal, sys\n"
        "from pops.cli.main import app\n"
        "from pops.training import checkpoints, trainer\n"
        "save, saved = checkpoints.save, []\n"
        "def dying(*args):\n"
        "    save(*args)\n"
        "    saved.append(1)\n"
        "    if len(saved) == 2 and 'die' in os.environ: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints.save = dying\n"
        "app(sys.argv[1:])\n"
    )

    def run(out: str, *more: str, **env: str) -> int:
        words = [sys.executable, "-c", killed, *command, "-o", str(tmp_path / out), *more]
        return subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, capture_output=True).returncode

    assert run("a", die="1") == -signal.SIGKILL and not (tmp_path / "a" / "operator.json").exists()
    assert run("a", "--resume") == 0 and run("b") == 0
    for name in ("adapter.safetensors", "checkpoint.safetensors"):
        one, two = (load_file(tmp_path / out / name) for out in "ab")
        assert set(one) == set(two) and all(bool((one[k] == two[k]).all()) for k in one), name
    logs = [[json.loads(line) for line in (tmp_path / out / "log.jsonl").read_text().splitlines()] for out in "ab"]
    assert [row["validation"] for row in logs[0] if "validation" in row] == [
        row["validation"] for row in logs[1] if "validation" in row
    ]


def test_a_spec_file_settings_and_shots(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "data" / "pairs")
    (tmp_path / "data" / "spec.yaml").write_text("data: pairs\nname: twin\nfrom: base\nlr: 1e-4\nsteps: 9\nrank: 2\n")
    done = call(
        "train", "data/spec.yaml", "-o", "run", "--model", "$M", "--shots", "12", "--json", *QUICK, "--set", "lr=2e-4"
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["operator"] == "twin" and data["start"] == "base" and data["samples"] == 12 and data["steps"] == 4
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["lr"] == 2e-4 and config["rank"] == 2 and config["batch_size"] == 8


def test_dry_run_writes_nothing(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    done = call("train", "pairs", "-o", "run", "--model", "$M", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["parameters"] > data["parameters_trained"] > 0 and data["step_seconds"] > 0 and data["memory_bytes"] > 0
    assert sum(data["counts"].values()) == 40 and not (tmp_path / "run").exists()
    assert "time" in call("train", "pairs", "-o", "run", "--model", "$M", "--dry-run").stdout


def test_time_that_is_up_ends_a_run_with_its_best(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    how = ("--set", "steps=100000", "--set", "batch_size=8", "--minutes", "0.0001")
    done = call("train", "pairs", "-o", "run", "--model", "$M", "--json", *how)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] < 1000 and (tmp_path / "run" / "operator.json").is_file()
    again = call("train", "pairs", "-o", "run", "--model", "$M", "--json", "--resume", *how)
    assert json.loads(again.stdout)["steps"] == json.loads(done.stdout)["steps"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "there is no nowhere; give a folder of examples or a spec (.yaml)"),
        (("pairs", "--set", "lrr=1"), "unknown key 'lrr' (did you mean 'lr'?)"),
        (("pairs", "--set", "lr=fast"), "lr must be a number, got 'fast'"),
        (("pairs", "--set", "steps=2.5"), "steps must be a whole number, got 2.5"),
        (("pairs", "--set", "lr"), "--set takes KEY=VALUE, such as lr=1e-4; got 'lr'"),
        (("pairs", "--set", "lr=-1"), "lr must be positive, got -1"),
        (("pairs", "--from", "texturin"), "unknown operator 'texturin' to start from (did you mean 'texturing'?)"),
        (("pairs", "--shots", "1000"), "shots is 1000, but there are"),
        (("pairs", "--minutes", "-1"), "minutes cannot be -1.0"),
        (("pairs", "--name", "two words"), "an operator's name is one plain word of its own, got 'two words'"),
        (("pairs", "--name", "text"), "an operator's name is one plain word of its own, got 'text'"),
        (("pairs", "--set", "eval_every=0"), "eval_every must be at least 1"),
        (("pairs", "-o", "pairs"), "pairs holds other files"),
        (("photo.txt",), "photo.txt is no spec; give a folder of examples or a .yaml file"),
        (("broken.yaml",), "broken.yaml is no YAML at line 3"),
        (("list.yaml",), "list.yaml holds no settings"),
        (("empty",), "empty"),
    ],
)
def test_mistakes_are_one_line(call: Any, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    write_examples(tmp_path / "pairs", count=24)
    (tmp_path / "photo.txt").write_text("x")
    (tmp_path / "broken.yaml").write_text("data: pairs\nlr: [1\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "empty").mkdir()
    out = () if "-o" in words else ("-o", "run")
    done = call("train", *words, *out, "--model", "$M")
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if line]
    assert message in lines[-1] and "Traceback" not in done.output
    assert not (tmp_path / "run" / "operator.json").exists()


def test_another_run_and_another_space_are_refused(call: Any, tmp_path: Path) -> None:
    write_examples(tmp_path / "pairs")
    assert call("train", "pairs", "-o", "run", "--model", "$M", *QUICK).exit_code == 0
    again = call("train", "pairs", "-o", "run", "--model", "$M", *QUICK)
    assert again.exit_code == 2 and "holds a run; add --resume" in again.stderr
    other = call("train", "pairs", "-o", "run", "--model", "$M", *QUICK, "--set", "lr=0.5", "--resume")
    assert other.exit_code == 2 and "holds another run (lr: 0.5, not None)" in other.stderr
    assert Shards.open(tmp_path / "run" / "shards").space == "random-32"
    space = call("train", "run/shards", "-o", "new", "--model", "tiny", *QUICK)
    assert space.exit_code == 2 and "space 'random-32'" in space.stderr and not (tmp_path / "new").exists()
