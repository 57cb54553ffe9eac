"""The rendered shards in memory: pictures, guides, labels, and the captions that their specs allow."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pops.toybox.pairs import CHANGE_PICTURES, GRID_PICTURES, PICTURES, change, family, grid
from pops.toybox.words import captions
from recipes.tiny import settings


@dataclass(frozen=True)
class Pictures:
    """Families, PICTURES in order within each; then grids, GRID_PICTURES each; then changes, CHANGE_PICTURES each."""

    images: Tensor  # uint8 [N, 3, S, S]
    guides: Tensor  # uint8 [N, 3, THUMB, THUMB]
    labels: Tensor  # int64 [N, 6], see render.LABELS
    families: int
    grids: int
    changes: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def first_grid(self) -> int:
        return self.families * len(PICTURES)


def shards(split: str, size: int = settings.CANVAS) -> list[Path]:
    """The shards of a split in order; those after a gap are left out."""
    found = sorted(settings.data(size).glob(f"{split}-[0-9]*.safetensors"))
    return [p for k, p in enumerate(found) if p.stem == f"{split}-{k:05d}"]


def load(guides: bool = True, size: int = settings.CANVAS, shrunk: bool = False) -> Pictures:
    """All training pictures of one size. shrunk: as the image tower sees them, SIZE pixels."""
    parts = {split: [load_file(p) for p in shards(split, size)] for split in ("train", "grid", "change")}
    if not parts["train"]:
        raise SystemExit(f"no shards in {settings.data(size)}: run `python -m recipes.tiny.render --size {size}` first")
    families = sum(len(r["images"]) for r in parts["train"]) // len(PICTURES)
    grids = sum(len(r["images"]) for r in parts["grid"]) // GRID_PICTURES
    changes = sum(len(r["images"]) for r in parts["change"]) // CHANGE_PICTURES
    rows = parts["train"] + parts["grid"] + parts["change"]
    images, thumbs, labels = (torch.cat([r.pop(k) for r in rows]) for k in ("images", "guides", "labels"))
    images = shrink(images) if shrunk else images
    return Pictures(images, thumbs if guides else thumbs[:0], labels, families, grids, changes)


def load_others(split: str, size: int = settings.CANVAS) -> tuple[Tensor, int]:
    """Pictures of all seeds of the split union (companies) or more in a row, and how many seeds there are."""
    paths, count = shards(split, size), 0
    for path in paths:
        with safe_open(path, "pt") as file:  # older shards do not say how many they hold
            count += int((file.metadata() or {}).get("seeds", settings.FAMILIES_A_SHARD // 5))
    empty = torch.zeros(0, 3, size, size, dtype=torch.uint8)
    return torch.cat([empty, *(load_file(p)["images"] for p in paths)]), count


class Growing:
    """Images of the training pictures of one size, on a device; `grow` adds those that were rendered meanwhile."""

    def __init__(self, size: int, device: torch.device, splits: tuple[str, ...] = ("train", "grid", "change")) -> None:
        self.size, self.device, self.splits = size, device, splits
        self.paths: set[Path] = set()
        self.images = torch.zeros(0, 3, size, size, dtype=torch.uint8, device=device)
        self.grow()
        if not len(self.images):
            raise SystemExit(f"no shards in {settings.data(size)}: run `python -m recipes.tiny.render --size {size}`")

    def grow(self) -> None:
        new = [p for split in self.splits for p in shards(split, self.size) if p not in self.paths]
        if new:
            self.paths |= set(new)
            self.images = torch.cat([self.images, *(load_file(p)["images"].to(self.device) for p in new)])


def to_unit(images: Tensor) -> Tensor:
    """uint8 => float32 in -1..1, the form that autoencoders take."""
    return images.float() / 127.5 - 1


def to_bytes(x: Tensor) -> Tensor:
    """Any float in -1..1 => uint8, the reverse of to_unit."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def shrink(images: Tensor, size: int = settings.SIZE) -> Tensor:
    """Makes images [N, C, S, S] of 8 bits smaller, as pops does with photos for the image tower: Pillow's bicubic."""
    if images.shape[-1] == size:
        return images
    out = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)

    def one(k: int) -> None:
        for channel, small in zip(images[k].cpu().numpy(), out[k], strict=True):
            pixels = Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
            small.copy_(torch.from_numpy(np.array(pixels)))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        list(pool.map(one, range(len(images))))
    return out.to(images.device)


def sheet(rows: list[Tensor], path: Path, scale: int = 1) -> None:
    """Writes rows of images [N, 3, S, S] in -1..1 as one picture, pixels enlarged `scale` times."""
    pixels = to_bytes(torch.cat([torch.cat(list(r.cpu()), 2) for r in rows], 1)).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST).save(path)


@dataclass(frozen=True)
class Captions:
    """Every true caption of every training picture: texts once, and for each picture the indices of its own."""

    texts: list[str]
    of: list[list[int]]

    def draw(self, rows: Tensor, rng: random.Random) -> list[int]:
        return [rng.choice(self.of[int(i)]) for i in rows]


def load_captions(families: int, grids: int, changes: int) -> Captions:
    index: dict[str, int] = {}
    specs = [s for seed in range(families) for s in family(seed).pictures().values()]
    specs += [s for seed in range(grids) for s in grid(seed).pictures()]
    specs += [s for seed in range(changes) for s in change(seed).pictures()]
    of = [[index.setdefault(t, len(index)) for t in captions(s)] for s in specs]
    return Captions(list(index), of)
