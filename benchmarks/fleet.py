"""One worker on Ray against two of one core each: embeddings a second by `tiny`, in turn in one run (extra ray).

python -m benchmarks.fleet --images 768 --rounds 3

Two free cores are needed, or there is nothing that two workers could share: the load of the machine is printed, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pops.data.fleet import FleetEncoder
from pops.fleet import LOCAL
from pops.models.hub import resolve
from pops.space import Space


def images_of(count: int, side: int = 96) -> list[Image.Image]:
    """Makes images of noise."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    folder: Path = resolve("tiny").folder
    space, images = Space.load(folder), images_of(asked.images)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(asked.rounds):
        for workers, found in seconds.items():
            fleet = FleetEncoder(space, partial(Space.load, folder), LOCAL, workers=workers)
            try:
                fleet.encode_images(images[: 32 * workers])  # reads the weights
                begun = time.perf_counter()
                for first in range(0, len(images), fleet.together):
                    fleet.encode_images(images[first : first + fleet.together])
                found.append(time.perf_counter() - begun)
            finally:
                fleet.close()
    one, two = (statistics.median(found) for found in seconds.values())
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    print(f"{asked.images} images, medians of {asked.rounds}; load {load} on {os.cpu_count()} cores")
    print(f"1 worker {asked.images / one:.1f} images/s, 2 workers {asked.images / two:.1f}: {one / two:.2f} times")


if __name__ == "__main__":
    main()
