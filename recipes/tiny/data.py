"""The rendered shards in memory: pictures, guides, labels, and the captions that their specs allow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pops.toybox.pairs import CHANGE_PICTURES, GRID_PICTURES, PICTURES, change, family, grid
from pops.toybox.words import captions
from recipes.tiny import settings


@dataclass(frozen=True)
class Pictures:
    """Families, PICTURES in order within each; then grids, GRID_PICTURES each; then changes, CHANGE_PICTURES each."""

    images: Tensor  # uint8 [N, 3, SIZE, SIZE]
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


def shards(split: str, size: int = settings.SIZE) -> list[Path]:
    """The shards of a split in order; those after a gap are left out."""
    found = sorted(settings.data(size).glob(f"{split}-[0-9]*.safetensors"))
    return [p for k, p in enumerate(found) if p.stem == f"{split}-{k:05d}"]


def load(guides: bool = True, size: int = settings.SIZE) -> Pictures:
    """All training pictures of one size."""
    parts = {split: [load_file(p) for p in shards(split, size)] for split in ("train", "grid", "change")}
    if not parts["train"]:
        raise SystemExit(f"no shards in {settings.data(size)}: run `python -m recipes.tiny.render --size {size}` first")
    families = sum(len(r["images"]) for r in parts["train"]) // len(PICTURES)
    grids = sum(len(r["images"]) for r in parts["grid"]) // GRID_PICTURES
    changes = sum(len(r["images"]) for r in parts["change"]) // CHANGE_PICTURES
    rows = parts["train"] + parts["grid"] + parts["change"]
    images, thumbs, labels = (torch.cat([r.pop(k) for r in rows]) for k in ("images", "guides", "labels"))
    return Pictures(images, thumbs if guides else thumbs[:0], labels, families, grids, changes)


def load_companies() -> tuple[Tensor, int]:
    """Pictures of all companies in a row, and how many companies there are."""
    paths = shards("union")
    count = sum(settings.FAMILIES_A_SHARD // 5 for _ in paths)
    empty = torch.zeros(0, 3, settings.SIZE, settings.SIZE, dtype=torch.uint8)
    return torch.cat([empty, *(load_file(p)["images"] for p in paths)]), count


def to_unit(images: Tensor) -> Tensor:
    """uint8 => float32 in -1..1, the form that autoencoders take."""
    return images.float() / 127.5 - 1


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
