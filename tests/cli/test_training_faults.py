"""What goes wrong on the road from pictures to an operator: one line each, and nothing half-written."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data.examples import rows_of, write_examples, write_metadata

QUICK = ("--set", "steps=4", "--set", "batch_size=8", "--set", "eval_every=2", "--set", "grid=0")


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full then."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def said(done: Any, code: int = 2) -> str:
    """The one line of a command that failed."""
    assert done.exit_code == code and "Traceback" not in done.output, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("pops: ")]
    assert len(lines) == 1, done.stderr
    return str(lines[0])


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != ".lock"} if folder.exists() else set()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_examples(tmp_path / "pairs", count=24)


@pytest.fixture
def shards(call: Any, pairs: Path) -> Path:
    assert call("data", "encode", "pairs", "-o", "shards", "--model", "$M").exit_code == 0
    return pairs.parent / "shards"


def without(pairs: Path, column: str) -> None:
    write_metadata(pairs, [{k: v for k, v in row.items() if k != column} for row in rows_of(pairs)])


@pytest.mark.parametrize("command", ["encode", "train", "evaluate"])
def test_missing_columns(call: Any, pairs: Path, command: str) -> None:
    words = {
        "encode": ("data", "encode", "pairs", "-o", "out"), "train": ("train", "pairs", "-o", "out", *QUICK),
        "evaluate": ("evaluate", "texturing", "--data", "pairs"),
    }[command]  # fmt: skip
    without(pairs, "target_file_name")
    assert "does not say what the result is; add target_file_name" in said(call(*words, "--model", "$M"))
    write_metadata(pairs, [{"id": str(i), "word": "red", "target_file_name": f"target/{i}.png"} for i in range(9)])
    assert "has only texts (word) for operands" in said(call(*words, "--model", "$M"))
    assert not (pairs.parent / "out").exists()


def test_broken_pictures(call: Any, pairs: Path) -> None:
    (pairs / "texture/5.png").write_bytes((pairs / "texture/5.png").read_bytes()[:60])
    for words in (("data", "encode", "pairs", "-o", "out"), ("train", "pairs", "-o", "run", *QUICK)):
        line = said(call(*words, "--model", "$M"))
        assert "metadata.jsonl, line 6" in line and "5.png" in line, line
    assert not (pairs.parent / "run/operator.json").exists() and not (pairs.parent / "out/about.json").exists()


def test_empty_splits(call: Any, pairs: Path) -> None:
    write_metadata(pairs, [{**row, "split": "test"} for row in rows_of(pairs)])
    assert "has no training examples" in said(call("train", "pairs", "-o", "run", "--model", "$M", *QUICK))
    write_metadata(pairs, [{**row, "split": "train"} for row in rows_of(pairs)])
    done = call("evaluate", "texturing", "--data", "pairs", "--split", "test", "--model", "$M")
    assert "0 examples with a result in split test" in said(done)
    assert not (pairs.parent / "run/operator.json").exists()


def test_another_space(call: Any, shards: Path) -> None:
    line = said(call("train", "shards", "-o", "run", "--model", "tiny", *QUICK))
    assert "space 'random-32'" in line and not (shards.parent / "run").exists()


@pytest.mark.parametrize("cut", [0, 7, 1000])
def test_a_shard_cut_in_half(call: Any, shards: Path, cut: int) -> None:
    path = next(shards.glob("train-*.safetensors"))
    path.write_bytes(path.read_bytes()[:cut])
    line = said(call("train", "shards", "-o", "run", "--model", "$M", *QUICK))
    assert path.name in line and not (shards.parent / "run/operator.json").exists()
    again = call("data", "encode", "pairs", "-o", "shards", "--model", "$M")
    assert again.exit_code == 0, again.output
    assert call("train", "shards", "-o", "again", "--name", "twin", "--model", "$M", *QUICK).exit_code == 0


def test_wrong_keys_of_a_spec(call: Any, pairs: Path) -> None:
    for text, message in (
        ("data: pairs\nlern_rate: 1\n", "spec.yaml: unknown key 'lern_rate'"),
        ("data: pairs\ngrid: many\n", "spec.yaml: grid"),
        ("steps: 4\n", "spec.yaml names no data; add data:"),
    ):
        (pairs.parent / "spec.yaml").write_text(text)
        assert message in said(call("train", "spec.yaml", "-o", "run", "--model", "$M"))
    assert not (pairs.parent / "run").exists()


def test_a_full_disk(call: Any, pairs: Path, shards: Path) -> None:
    place = pairs.parent
    with small_disk(300):
        line = said(call("data", "make", "scene", "-o", "made", "--count", "2", "--size", "32"), 1)
        assert "could not be written (File too large)" in line
        line = said(call("data", "encode", "pairs", "-o", "new", "--model", "$M"), 1)
        assert "could not be written" in line
        line = said(call("train", "shards", "-o", "run", "--name", "twin", "--model", "$M", *QUICK), 1)
        assert "could not be written" in line
    assert not [name for name in tree(place / "made") if name.endswith(".png")]
    assert not (place / "new/about.json").exists() and not (place / "run/operator.json").exists()
    assert not [p for where in ("made", "new", "run") for p in (place / where).rglob(".*-*")], "no unfinished writes"
    done = call("data", "make", "scene", "-o", "made", "--count", "2", "--size", "32", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["items"] == 2, "it goes on where it was"
    shutil.rmtree(place / "made")
