"""Splits of examples: their names as people write them, and one drawn by hashes where the metadata name none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")
# As it may be written -> the split.
WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
SHARES = {"test": 0.1, "validation": 0.1}
FEW = 8  # held out at least, of each, where that leaves two thirds for training


def drawn_splits(keys: Sequence[str]) -> list[str]:
    """Draws the split of each row from a hash of its key: 80 % train, 10 % validation, 10 % test.

    Rows of one key stay together. A row keeps its split as others come, but in small folders: there the rows of the
    lowest hashes fill validation and test up to FEW, or a sixth of all.
    """
    places = {key: _place(key) for key in keys}
    order = sorted(places, key=lambda key: (places[key], key))
    split: dict[str, str] = {}
    counts = dict.fromkeys(places, 0)
    for key in keys:
        counts[key] += 1
    fewest = min(FEW, len(keys) // 6)
    taken = 0
    limit = 0.0
    for name, share in SHARES.items():
        limit += share
        rows = 0
        while taken < len(order) and (places[order[taken]] < limit or rows < fewest):
            split[order[taken]] = name
            rows += counts[order[taken]]
            taken += 1
    return [split.get(key, "train") for key in keys]


def _place(key: str) -> float:
    """Returns where a key lies between 0 and 1: the same always, and evenly spread."""
    return int.from_bytes(hashlib.sha256(f"pops split {key}".encode()).digest()[:8], "big") / 2**64
