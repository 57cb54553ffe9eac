"""Small folders of examples for tests: pictures of two colours whose result follows from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 210), "sand": (210, 190, 140)}


def write_examples(
    folder: Path, *, roles: tuple[str, ...] = ("object", "texture"), word: bool = False, count: int = 40
) -> Path:
    """Writes `count` examples. Each operand is half one colour and half grey; the result has all their colours, and
    with a word half of it is of that colour.
    """
    rng = random.Random(0)
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        row = {"id": str(i)}
        shown = []
        for role in roles:
            colour = tuple(rng.randrange(256) for _ in range(3))
            shown.append(colour)
            _striped([colour, (128, 128, 128)]).save(folder / f"{i}-{role}.png")
            row[f"{role}_file_name"] = f"{i}-{role}.png"
        if word:
            row["word"] = rng.choice(list(COLOURS))
            shown.append(COLOURS[row["word"]])
        _striped(shown).save(folder / f"{i}-result.png")
        row["target_file_name"] = f"{i}-result.png"
        rows.append(row)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def _striped(colours: list[tuple[int, ...]], side: int = 32) -> Image.Image:
    image = Image.new("RGB", (side, side))
    for i, colour in enumerate(colours):
        image.paste(colour, (i * side // len(colours), 0, (i + 1) * side // len(colours), side))
    return image
