"""Eight threads on a cold start: nothing is imported or read yet, and all begin at once, in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = r"""
import sys, threading
sys.setswitchinterval(float(sys.argv[1])) if sys.argv[1] != "default" else None
import pops
OBJECTS = sys.argv[3] + "/examples/objects/"
DOG, HAT, TIGER = OBJECTS + "dog.png", OBJECTS + "hat.png", sys.argv[3] + "/examples/textures/tiger.png"
shared = pops.load("tiny", device="cpu")
barrier, found, failed = threading.Barrier(8), {}, []

def work(i):
    p = shared if sys.argv[2] == "shared" else pops.load("tiny", device="cpu")
    barrier.wait()
    try:
        if i % 4 == 0:
            e = p.evaluate(f"texturing({DOG}, {TIGER})", steps=2)
            found[i] = p.render(e, steps=1)[0].tobytes()
        elif i % 4 == 1:
            found[i] = p.evaluate(f'instruct({HAT}, "golden")', steps=2).vectors.numpy().tobytes()
        elif i % 4 == 2:
            found[i] = p.mix(DOG, "tiger", steps=4).tobytes()
        else:
            e = p.evaluate('text("a marble rabbit")', steps=2)
            found[i] = p.render(e, steps=1, control={"depth": DOG})[0].tobytes()
    except BaseException as e:
        failed.append(f"{i}: {type(e).__name__}: {e}")

threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
[t.start() for t in threads]
[t.join(150) for t in threads]
stuck = [i for i, t in enumerate(threads) if t.is_alive()]
if failed or stuck:
    sys.exit(f"failed {failed}, stuck {stuck}")
for i in range(4):
    if found[i] != found[i + 4]:
        sys.exit(f"threads {i} and {i + 4} came to different results")
print("right", flush=True)
"""


def cold_start(interval: str, of_pops: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, interval, of_pops, str(ROOT)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)


@pytest.mark.parametrize(("interval", "of_pops"), [("1e-6", "shared"), ("default", "shared"), ("1e-6", "own")])
def test_eight_threads_begin_at_once(interval: str, of_pops: str) -> None:
    done = cold_start(interval, of_pops)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
