"""Folders of examples, made on the spot: `write_examples(folder, count)`. The same seed gives the same pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ("red", "tiger", "green")


def picture(path: Path, seed: int, side: int = 48) -> Path:
    """A picture of a few random colours, unlike those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path


def write_examples(folder: Path, count: int = 12, *, suffix: str = ".jsonl", **columns: Any) -> Path:
    """Examples of an operator with an object, a texture and a word; columns: further ones, a value each or a list."""
    rows = []
    for i in range(count):
        row = {"id": f"e{i}", "object_file_name": f"object/{i}.png", "texture_file_name": f"texture/{i}.png"}
        row |= {"word": WORDS[i % len(WORDS)], "target_file_name": f"target/{i}.png"}
        row |= {name: value[i] if isinstance(value, list) else value for name, value in columns.items()}
        rows.append(row)
        for k, role in enumerate(("object", "texture", "target")):
            picture(folder / role / f"{i}.png", 1000 * k + i)
    write_metadata(folder, rows, suffix)
    return folder


def write_metadata(folder: Path, rows: list[dict[str, Any]], suffix: str = ".jsonl") -> None:
    path = folder / f"metadata{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's metadata.jsonl."""
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
