"""The rendered shards in memory: pictures, guides, labels, and the captions that their specs allow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recipes.tiny import settings
from toybox.pairs import PICTURES, family
from toybox.words import captions


@dataclass(frozen=True)
class Pictures:
    images: Tensor  # uint8 [N, 3, SIZE, SIZE], families in a row, PICTURES order within each
    guides: Tensor  # uint8 [N, 3, THUMB, THUMB]
    labels: Tensor  # int64 [N, 6], see render.LABELS

    def __len__(self) -> int:
        return len(self.images)

    @property
    def families(self) -> int:
        return len(self) // len(PICTURES)


def shards(split: str = "train", folder: Path | None = None) -> list[Path]:
    return sorted((folder or settings.DATA).glob(f"{split}-[0-9]*.safetensors"))


def load(split: str = "train", limit: int | None = None) -> Pictures:
    """All shards of a split (at most `limit` of them)."""
    paths = shards(split)[:limit]
    if not paths:
        raise SystemExit(f"no shards of {split!r} in {settings.DATA}: run `python -m recipes.tiny.render` first")
    rows = [load_file(p) for p in paths]
    return Pictures(*(torch.cat([r[k] for r in rows]) for k in ("images", "guides", "labels")))


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


def load_captions(families: int, split: str = "train", focus: str | None = None) -> Captions:
    index: dict[str, int] = {}
    of = []
    for seed in range(families):
        specs = family(seed, split, focus).pictures()
        for name in PICTURES:
            of.append([index.setdefault(t, len(index)) for t in captions(specs[name])])
    return Captions(list(index), of)
