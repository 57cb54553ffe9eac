"""Work shared on Ray: the same shards and libraries as one process makes; a worker that is killed costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.examples import picture, write_examples


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".safetensors"}


def pops(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pops", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ray_encodes_the_same_bytes_and_indexes_the_same_photos(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    import torch

    from pops.embedding import Embedding
    from pops.library import Library

    examples = write_examples(tmp_path / "examples", count=30)
    for k in range(20):
        picture(tmp_path / f"photos/{k}.png", seed=k)
    fleet = ("--ray", "local", "--workers", "2")
    for name, how in (("alone", ()), ("shared", fleet)):
        pops("data", "encode", str(examples), "-o", str(tmp_path / name), "-m", str(folder), "-q", *how)
        pops("index", str(tmp_path / "photos"), "-o", str(tmp_path / f"{name}.library"), "-m", str(folder), "-q", *how)
    assert files(tmp_path / "alone") == files(tmp_path / "shared") != {}
    found = []
    for name in ("alone", "shared"):
        library = Library.open(tmp_path / f"{name}.library")
        ones = Embedding(torch.ones(1, library.about.dim), library.about.space)
        found.append([(match.path, match.score) for match in library.search(ones, 20)[0]])
    assert found[0] == found[1] and len(found[0]) == 20


def test_a_killed_worker_is_started_again(tmp_path: Path, random_model: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    import os
    import signal
    from functools import partial

    import torch
    from PIL import Image

    from pops.data.fleet import FleetEncoder
    from pops.space import Space

    space = Space.load(random_model)
    images = [Image.new("RGB", (64, 64), (k, 2 * k, 255 - k)) for k in range(40)]
    fleet = FleetEncoder(space, partial(Space.load, random_model), "local", workers=2)
    try:
        first = fleet.encode_images(images)
        os.kill(fleet.fleet.pids()[0], signal.SIGKILL)
        again = fleet.encode_images(images)
    finally:
        fleet.close()
        ray.shutdown()
    assert torch.equal(first, again)
    torch.testing.assert_close(first, space.encode_images(images))


@pytest.mark.parametrize("words", [("data", "encode", "f", "-o", "s"), ("index", "photos", "-o", "l")])
def test_without_ray_there_is_one_line(
    words: tuple[str, ...], call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path / "f", count=4)
    picture(tmp_path / "photos/0.png", seed=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call(*words, "-m", "$M", "--ray", "local")
    assert done.exit_code == 2 and "ray is not installed; run: pip install 'pops-diffusion[ray]'" in done.stderr
    done = call(*words, "-m", "$M", "--workers", "2")
    assert done.exit_code == 2 and "--workers is of --ray; add --ray local, or leave it out" in done.stderr
    assert not (tmp_path / words[-1]).exists()
