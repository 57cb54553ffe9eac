"""Stage 1: renders families of toybox into shards of pictures with labels. Resumable: a shard that stands is kept.

python -m recipes.tiny.render --families 8000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.draw import Shot, draw
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.pairs import PICTURES, Family, change, company, draw_alike, draw_family, draw_grid, family, grid
from pops.toybox.scenes import SCENES
from pops.toybox.world import SceneSpec, SwatchSpec
from recipes.tiny import settings

LABELS = ("category", "category_b", "material", "material_b", "scene", "adjective")  # -1: none, or no name


def label(spec: SceneSpec | SwatchSpec) -> list[int]:
    """The names a picture shows, as indices into the world's tables, in the order of LABELS."""
    names = {k: list(v) for k, v in {"c": CATEGORIES, "m": MATERIALS, "s": SCENES, "a": ADJECTIVES}.items()}
    if isinstance(spec, SwatchSpec):
        m = spec.material
        return [-1, -1, names["m"].index(m.name) if m.kind == "named" else -1, -1, -1, -1]
    row = []
    for attribute in ("category", "material"):
        for k in (0, 1):
            if k >= len(spec.objects):
                row.append(-1)
            elif attribute == "category":
                row.append(names["c"].index(spec.objects[k].category))
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
    return (torch.stack(rows) * 255).round().to(torch.uint8)


def _shrink(v: Tensor, n: int) -> Tensor:
    side = int(v.numel() ** 0.5)
    return F.adaptive_avg_pool2d(v.view(1, 1, side, side), n)[0, 0]


def render_shard(path: Path, seeds: range, split: str, focus: str | None, size: int) -> int:
    """Renders the families of some seeds into one shard: pictures in the order of PICTURES, family by family."""
    images, thumbs, labels = [], [], []
    for seed in seeds:
        f: Family = family(seed, split, focus)
        pictures, shots = draw_family(f, size)
        specs = f.pictures()
        for name in PICTURES:
            images.append(pictures[name])
            thumbs.append(guides(shots.get(name)))
            labels.append(label(specs[name]))
    _write(path, images, thumbs, labels, seeds, split, focus or "")
    return len(images)


def render_grids(path: Path, seeds: range, size: int) -> int:
    """Renders the grids of some seeds into one shard, grid by grid."""
    images, thumbs, labels = [], [], []
    for seed in seeds:
        g = grid(seed)
        pictures, shots = draw_grid(g, size)
        images += pictures
        thumbs += [guides(s) for s in shots]
        labels += [label(s) for s in g.pictures()]
    _write(path, images, thumbs, labels, seeds, "grid", "")
    return len(images)


def render_changes(path: Path, seeds: range, size: int) -> int:
    """Renders the changes of some seeds into one shard, change by change."""
    images, thumbs, labels = [], [], []
    for seed in seeds:
        specs = change(seed).pictures()
        pictures, shots = draw_alike(specs, size)
        images += pictures
        thumbs += [guides(s) for s in shots]
        labels += [label(s) for s in specs]
    _write(path, images, thumbs, labels, seeds, "change", "")
    return len(images)


def render_companies(path: Path, seeds: range, size: int) -> int:
    """Renders the companies of some seeds into one shard, for the operator union."""
    specs = [s for seed in seeds for s in company(seed).pictures()]
    images = [draw(s, size) for s in specs]
    _write(path, images, [guides(None) for _ in specs], [label(s) for s in specs], seeds, "union", "")
    return len(images)


def _write(
    path: Path,
    images: list[Tensor],
    thumbs: list[Tensor],
    labels: list[list[int]],
    seeds: range,
    split: str,
    focus: str,
) -> None:
    tensors = {"images": torch.stack(images), "guides": torch.stack(thumbs), "labels": torch.tensor(labels)}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"first_seed": str(seeds.start), "split": split, "focus": focus})
    partial.replace(path)


def _work(job: tuple[Path, range, str, str | None, int]) -> int:
    torch.set_num_threads(1)
    with torch.no_grad():
        path, seeds, split, focus, size = job
        if split == "grid":
            return render_grids(path, seeds, size)
        if split == "change":
            return render_changes(path, seeds, size)
        if split == "union":
            return render_companies(path, seeds, size)
        return render_shard(path, seeds, split, focus, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", type=int, default=4000, help="families, grids, changes or companies")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--split", choices=("train", "test", "grid", "change", "union"), default="train")
    parser.add_argument("--focus", default=None, help="test: the operator whose combinations are held out")
    parser.add_argument("--size", type=int, default=settings.SIZE, help="pixels along each side")
    args = parser.parse_args()
    folder = settings.data(args.size)
    folder.mkdir(parents=True, exist_ok=True)
    step = settings.FAMILIES_A_SHARD // (5 if args.split == "union" else 1)
    stem = args.split if args.focus is None else f"{args.split}-{args.focus}"
    jobs = []
    for k, start in enumerate(range(0, args.families, step)):
        path = folder / f"{stem}-{k:05d}.safetensors"
        if not path.exists():
            jobs.append((path, range(start, min(start + step, args.families)), args.split, args.focus, args.size))
    begun, done = time.time(), 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers) as pool:
        for count in pool.imap_unordered(_work, jobs):
            done += count
            print(f"{done} pictures, {done / (time.time() - begun):.0f} a second", flush=True)


if __name__ == "__main__":
    main()
