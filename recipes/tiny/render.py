"""Stage 1: renders families of toybox into shards of pictures with labels. Resumable: a shard that stands is kept.

    python -m recipes.tiny.render --families 3100
    python -m recipes.tiny.render --families 3100 --minutes 2       # as far as it gets
    python -m recipes.tiny.render --split train --families 60 --size 512 --samples 1    # for the upscaler
    python -m recipes.tiny.render --measure 10 --device cuda        # pictures a second on a device, and no shards

Besides families it renders grids, changes and companies (see pops.toybox.pairs) and examples of MORE, in the
proportions of SHARES and interleaved, so that an early end leaves some of each.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.draw import draw
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.pairs import (
    PICTURES,
    Picture,
    change,
    company,
    draw_alike,
    draw_family,
    draw_grid,
    family,
    grid,
    triplet,
)
from pops.toybox.scenes import SCENES
from pops.toybox.shot import Shot
from pops.toybox.world import SceneSpec, SwatchSpec
from recipes.tiny import settings

SHARES = {"train": 1.0, "grid": 0.29, "change": 0.65, "union": 0.065, "more": 0.1}  # for each family
LABELS = ("category", "category_b", "material", "material_b", "scene", "adjective")  # -1: none, or no name


def label(spec: SceneSpec | SwatchSpec) -> list[int]:
    """The names a picture shows, as indices into the world's tables, in the order of LABELS."""
    tables: dict[str, Iterable[str]] = {"c": CATEGORIES, "m": MATERIALS, "s": SCENES, "a": ADJECTIVES}
    names = {key: list(table) for key, table in tables.items()}
    if isinstance(spec, SwatchSpec):
        m = spec.material
        return [-1, -1, names["m"].index(m.name) if m.kind == "named" else -1, -1, -1, -1]
    row = []
    for attribute in ("category", "material"):
        for k in (0, 1):
            if k >= len(spec.objects):
                row.append(-1)
            elif attribute == "category":
                category = spec.objects[k].category
                row.append(names["c"].index(category) if category in names["c"] else -1)
            else:
                m = spec.objects[k].material
                row.append(names["m"].index(m.name) if m.kind == "named" else -1)
    adjectives = [a for o in spec.objects for a in o.adjectives]
    return [*row, names["s"].index(spec.scene), names["a"].index(adjectives[0]) if adjectives else -1]


def guides(shot: Shot | None) -> Tensor:
    """uint8 [3, THUMB, THUMB]: coverage by the first object, by the second, and nearness of what is seen."""
    n = settings.THUMB
    if shot is None:
        return torch.zeros(3, n, n, dtype=torch.uint8)
    rows = []
    for k in (0, 1):
        cover = torch.zeros_like(shot.t)
        if k < len(shot.hits):
            cover[shot.hits[k].rays] = 1
        rows.append(_shrink(cover, n))
    near = torch.where(torch.isfinite(shot.t), ((7.5 - shot.t) / 4.5).clamp(0, 1), torch.zeros_like(shot.t))
    rows.append(_shrink(near, n))
    return (torch.stack(rows) * 255).round().to(torch.uint8).cpu()


def _shrink(v: Tensor, n: int) -> Tensor:
    side = int(v.numel() ** 0.5)
    return F.adaptive_avg_pool2d(v.view(1, 1, side, side), n)[0, 0]


@dataclass(frozen=True)
class Job:
    """A shard: the seeds of one split, and how they are drawn."""

    path: Path
    split: str
    seeds: range
    size: int
    samples: int
    device: str = "cpu"

    def drawn(self, seed: int) -> tuple[list[Picture], list[Tensor], list[Shot | None]]:
        """Draws a seed's pictures, in the order in which its specs come, and returns specs, pictures and shots."""
        how = (self.size, self.samples, self.device)
        if self.split == "grid":
            g = grid(seed)
            return g.pictures(), *draw_grid(g, *how)
        if self.split == "change":
            edited = change(seed).pictures()
            return [*edited], *draw_alike(edited, *how)  # type: ignore[return-value]
        if self.split == "union":
            together = company(seed).pictures()
            return [*together], [draw(s, *how) for s in together], [None] * len(together)
        if self.split == "more":
            some = more(seed)
            return [*some], *draw_alike(some, *how)  # type: ignore[return-value]
        f = family(seed)
        images, shots = draw_family(f, *how)
        return [f.pictures()[n] for n in PICTURES], [images[n] for n in PICTURES], [shots.get(n) for n in PICTURES]

    @torch.no_grad()
    def work(self) -> int:
        """Renders the shard, unless it stands; returns how many pictures it took."""
        torch.set_num_threads(1)
        images: list[Tensor] = []
        thumbs: list[Tensor] = []
        labels: list[list[int]] = []
        for seed in self.seeds:
            specs, drawn, shots = self.drawn(seed)
            images += [image.cpu() for image in drawn]
            thumbs += [guides(s) for s in shots]
            labels += [label(s) for s in specs]
        tensors = {"images": torch.stack(images), "guides": torch.stack(thumbs), "labels": torch.tensor(labels)}
        about = {"split": self.split, "first_seed": str(self.seeds.start), "seeds": str(len(self.seeds))}
        partial = self.path.with_suffix(".partial")
        save_file(tensors, partial, about)
        partial.replace(self.path)
        return len(images)


def more(seed: int) -> list[SceneSpec]:
    """The operands and the result, in this order, of a training example of one of MORE."""
    drawn = triplet(settings.MORE[seed % len(settings.MORE)], seed // len(settings.MORE), "train")
    return [s for s in (*drawn.operands, drawn.result) if isinstance(s, SceneSpec)]


def jobs(split: str, count: int, size: int, samples: int, device: str) -> list[Job]:
    """Returns the shards of `count` seeds of a split that are still to be rendered."""
    step = max(1, settings.FAMILIES_A_SHARD // (5 if split in ("union", "more") else 1))
    folder, found = settings.data(size), []
    for k, start in enumerate(range(0, count, step)):
        path, seeds = folder / f"{split}-{k:05d}.safetensors", range(start, min(start + step, count))
        if not path.exists() or seeds_in(path, step) < len(seeds):
            found.append(Job(path, split, seeds, size, samples, device))
    return found


def seeds_in(path: Path, otherwise: int) -> int:
    """Returns how many seeds a shard holds; `otherwise` for an older one, which does not say."""
    with safe_open(path, "pt") as file:
        return int((file.metadata() or {}).get("seeds", otherwise))


def interleaved(lists: list[list[Job]]) -> list[Job]:
    """Mixes lists so that, wherever one stops, about the same share of each is done."""
    keyed = [(k / max(1, len(rows)), row) for rows in lists for k, row in enumerate(rows)]
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def measure(seconds: float, size: int, samples: int, device: str) -> float:
    """Draws families on a device for some seconds, in one process and thread; returns pictures a second."""
    torch.set_num_threads(1)
    draw_family(family(0), size, samples, device)  # tables and kernels are made on first use
    begun, done = time.time(), 0
    for seed in itertools.count(1):
        images, _ = draw_family(family(seed), size, samples, device)
        done += len([image.cpu() for image in images.values()])
        if time.time() - begun > seconds:
            return done / (time.time() - begun)
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=3100, help="with --split, how many of that split")
    parser.add_argument("--split", choices=("all", *SHARES), default="all")
    parser.add_argument("--size", type=int, default=settings.CANVAS, help="pixels along each side")
    parser.add_argument("--samples", type=int, default=2, help="rays along each side of a pixel")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long; shards under way are lost")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", type=float, default=None, metavar="SECONDS", help="only measure the speed")
    args = parser.parse_args()
    if args.measure is not None:
        with torch.no_grad():
            rate = measure(args.measure, args.size, args.samples, args.device)
        how = f"{args.size} pixels, {args.samples} x {args.samples} samples, {args.device}"
        print(f"{rate:.1f} pictures a second ({how}, one process)", flush=True)
        return
    settings.data(args.size).mkdir(parents=True, exist_ok=True)
    shares = SHARES if args.split == "all" else {args.split: 1.0}
    of_job = (args.size, args.samples, args.device)
    todo = interleaved([jobs(split, round(args.families * share), *of_job) for split, share in shares.items()])
    begun, done = time.time(), 0
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        results = pool.imap_unordered(Job.work, todo)
        for _ in todo:
            left = None if args.minutes is None else max(0.0, 60 * args.minutes - (time.time() - begun))
            try:
                done += results.next(left)
            except multiprocessing.TimeoutError:
                break  # leaving the pool ends its processes
            print(f"{done} pictures, {done / (time.time() - begun):.0f} a second", flush=True)


if __name__ == "__main__":
    main()
