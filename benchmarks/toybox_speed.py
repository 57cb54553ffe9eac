"""Images per second of toybox, 128 x 128 with 2 x 2 samples, one process per core: single, families and grids.

python -m benchmarks.toybox_speed --seconds 20
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable

import torch

from pops.toybox.draw import draw
from pops.toybox.pairs import GRID_PICTURES, PICTURES, draw_family, draw_grid, family, grid
from pops.toybox.world import sample_scene

SIZE = 128


def _single(seed: int) -> int:
    draw(sample_scene(seed), SIZE)
    return 1


def _family(seed: int) -> int:
    draw_family(family(seed), SIZE)
    return len(PICTURES)


def _grid(seed: int) -> int:
    draw_grid(grid(seed), SIZE)
    return GRID_PICTURES


KINDS: dict[str, Callable[[int], int]] = {"single": _single, "family": _family, "grid": _grid}


def _worker(job: tuple[str, float, int]) -> float:
    """Returns images per second of one process on one thread."""
    kind, seconds, first = job
    torch.set_num_threads(1)
    with torch.no_grad():
        KINDS[kind](first)
        begun, count, seed = time.perf_counter(), 0, first
        while time.perf_counter() - begun < seconds:
            seed += 1
            count += KINDS[kind](seed)
        return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    rates = {}
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for kind in KINDS:
            jobs = [(kind, args.seconds, 10_000 * w) for w in range(args.workers)]
            rates[kind] = round(sum(pool.map(_worker, jobs, chunksize=1)), 1)
    print(json.dumps({"size": SIZE, "workers": args.workers, "images_per_second": rates}))


if __name__ == "__main__":
    main()
