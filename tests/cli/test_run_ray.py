"""pops run --ray: the images of one process; a killed worker costs nothing, a killed run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.examples import picture

SEEDS = ("--seed", "0:40", "--steps", "1", "--render-steps", "2", "--upscale", "1")
FLEET = ("--ray", "local", "--workers", "2")


def words(folder: Path, out: Path, *more: str) -> list[str]:
    photo = folder / "photo.png"
    if not photo.exists():
        picture(photo, seed=1)
    return ["run", f"union({photo}, _)", *SEEDS, "-o", str(out / "i.png"), "-q", *more]


def pops(*given: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pops", *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def images(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("i-*.png")}


def test_many_workers_make_the_images_of_one(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    for name, more in (("alone", ()), ("shared", FLEET), ("half", (*FLEET, "--shard", "2/2"))):
        (tmp_path / name).mkdir()
        pops(*words(tmp_path, tmp_path / name, *more))
    alone, shared, half = (images(tmp_path / name) for name in ("alone", "shared", "half"))
    assert alone == shared and len(alone) == 40
    assert half.items() < alone.items() and len(half) == 16


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    for name in ("alone", "killed"):
        (tmp_path / name).mkdir()
    pops(*words(tmp_path, tmp_path / "alone"))
    killed = words(tmp_path, tmp_path / "killed", *FLEET)
    run = subprocess.Popen([sys.executable, "-m", "pops", *killed])
    end = time.monotonic() + 120
    while len(images(tmp_path / "killed")) < 8 and run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert 8 <= len(images(tmp_path / "killed")) < 40
    pops(*killed, "--resume")
    assert images(tmp_path / "killed") == images(tmp_path / "alone")


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from pops.fleet import Cluster

    class Held:  # here, so that workers get it whole
        def square(self, n: int) -> int:
            return n * n

    try:
        with Cluster("local", workers=2).start(Held) as fleet:
            answers = fleet.map("square", ((n,) for n in range(40)))
            first = [next(answers) for _ in range(5)]
            os.kill(fleet.pids()[0], signal.SIGKILL)
            assert [*first, *answers] == [n * n for n in range(40)]
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--ray", "local", "--grid", "g.png"), "are of the whole run; make them without --ray"),
        (("--ray", "local", "--save-embedding", "e.npy"), "are of the whole run; make them without --ray"),
        (("--workers", "2"), "--workers is of --ray; add --ray local, or leave it out"),
        (("--ray", "local", "--server", "http://127.0.0.1:1"), "work without --server; leave it out"),
    ],
)
def test_what_a_cluster_does_not_make(more: tuple[str, ...], told: str, call: Any, tmp_path: Path) -> None:
    more = tuple(str(tmp_path / word) if word in ("g.png", "e.npy") else word for word in more)
    done = call(*words(tmp_path, tmp_path, *more))
    assert done.exit_code == 2 and told in done.stderr
    assert not list(tmp_path.glob("i*")) + list(tmp_path.glob("[ge].*"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999"])
def test_a_cluster_that_is_not_there_is_one_line(
    address: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))  # it is not asked
    done = call(*words(tmp_path, tmp_path, "--ray", address))
    assert done.exit_code == 2 and f"there is no Ray cluster at {address} (" in done.stderr, done.output
    assert not list(tmp_path.glob("i*"))


def test_without_ray_there_is_one_line(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call(*words(tmp_path, tmp_path, "--ray", "local"))
    assert done.exit_code == 2 and "ray is not installed; run: pip install 'pops-diffusion[ray]'" in done.stderr
    assert not list(tmp_path.glob("i*")) + list(tmp_path.glob("[ge].*"))
