"""Runs all stages of the recipe in order, each resumable: `make tiny`, or `python -m recipes.tiny --scale 4`."""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch

from recipes.tiny import settings
from recipes.tiny.operators import OPERATORS


def stages(scale: float, workers: int) -> list[list[str]]:
    """Returns every stage's module and arguments; scale multiplies the training steps."""

    def steps(n: int) -> list[str]:
        return ["--steps", str(round(n * scale))]

    return [
        ["render", "--families", "3100"],
        ["poses", "--seeds", "2000"],
        ["clip", *steps(6000)],
        ["autoencoder", *steps(60000)],
        ["autoencoder", "--sharpen", *steps(6000)],
        ["encode"],
        ["operators", "prior", *steps(1000)],
        *(["operators", name, *steps(3000)] for name in OPERATORS),
        ["answers"],
        ["diffusion", *steps(18000), "--workers", str(workers)],
        ["render", "--split", "train", "--families", "100", "--size", str(settings.LARGE), "--samples", "1"],
        ["upscaler", *steps(100000)],
        ["depth", *steps(2400)],
        ["control", *steps(1400)],
        ["oracle", *steps(9000)],
        ["assemble", "--publish"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the training steps of this tiny")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads(), help="processes of the diffusion stage")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    args = parser.parse_args()
    for module, *rest in stages(args.scale, args.workers):
        command = [sys.executable, "-m", f"recipes.tiny.{module}", *rest]
        print(" ".join(command[1:]), flush=True)
        if not args.dry_run:
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
