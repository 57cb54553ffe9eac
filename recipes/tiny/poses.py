"""Stage 1b: draws images of objects in several poses with exact depth, for spatial control. Resumable by shards.

    python -m recipes.tiny.poses --seeds 2000

A shard holds POSES images per seed: images, hints (nearness, one byte), masks (share of a pixel that objects cover).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pops.toybox.draw import light as lit_by
from pops.toybox.draw import object_paints, paint, setting_of
from pops.toybox.poses import nearness, poses
from pops.toybox.shot import shoot
from recipes.tiny import settings

POSES = 3
A_SHARD = 50  # seeds per shard


def render(seeds: range, split: str = "train") -> dict[str, Tensor]:
    """Draws images uint8 [N, 3, S, S], hints and masks uint8 [N, S, S]; POSES rows per seed."""
    images, hints, masks = [], [], []
    for seed in seeds:
        for spec in poses(seed, split, POSES):
            shot = shoot(spec.objects, spec.camera, settings.CANVAS)
            images.append(
                paint(lit_by(shot, setting_of(spec.scene, spec.setting)), [object_paints(o) for o in spec.objects])
            )
            hints.append((nearness(shot) * 255).round().to(torch.uint8))
            masks.append((shot.mask * 255).round().to(torch.uint8))
    return {"images": torch.stack(images), "hints": torch.stack(hints), "masks": torch.stack(masks)}


def load() -> dict[str, Tensor]:
    """Loads all shards in order, up to the first missing one."""
    rows = []
    for k, path in enumerate(sorted(settings.data().glob("poses-*.safetensors"))):
        if path.stem != f"poses-{k:05d}":
            break
        rows.append(load_file(path))
    if not rows:
        raise SystemExit(f"no shards in {settings.data()}: run `python -m recipes.tiny.poses` first")
    return {key: torch.cat([r[key] for r in rows]) for key in rows[0]}


def _work(job: tuple[Path, range]) -> int:
    torch.set_num_threads(1)
    path, seeds = job
    with torch.no_grad():
        rows = render(seeds)
    partial = path.with_suffix(".partial")
    save_file(rows, partial)
    partial.replace(path)
    return len(rows["images"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    settings.data().mkdir(parents=True, exist_ok=True)
    jobs = []
    for k, start in enumerate(range(0, args.seeds, A_SHARD)):
        path = settings.data() / f"poses-{k:05d}.safetensors"
        if not path.exists():
            jobs.append((path, range(start, min(start + A_SHARD, args.seeds))))
    begun, done = time.time(), 0
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for count in pool.imap_unordered(_work, jobs):
            done += count
            print(f"{done} images, {done / (time.time() - begun):.0f} per second", flush=True)


if __name__ == "__main__":
    main()
