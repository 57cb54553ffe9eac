"""Objects of toybox textured by real photographs: a grid for the docs. The photographs themselves stay out of it.

    python docs/photo_grid.py FOLDER_OF_TEXTURE_PHOTOS [--show-photos] [-o out/photo_textures.jpg]

Under each object stand the photograph's main colours (its 24 x 24 thumbnail, quantised) and its photographer; with
--show-photos the photograph takes their place, to be looked at on one's own machine. The README's picture is written by
-o docs/pictures/photo_textures.jpg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import pops
from pops.images import PHOTO_SUFFIXES, load_photo

ROOT = Path(__file__).resolve().parents[1]
OBJECTS = ("teapot", "elephant", "vase", "mushroom", "car", "rabbit", "house", "donut", "chair", "mug")
OUT = ROOT / "out" / "photo_textures.jpg"  # git ignores it: the README's picture is replaced on purpose only
CELL, GAP = 160, 10


def palette(photo: Image.Image, colours: int = 6) -> Image.Image:
    """The main colours of a photo as stripes, the widest first."""
    small = photo.resize((24, 24), Image.Resampling.BOX).quantize(colours, kmeans=2)
    table = small.getpalette() or []
    stripes = Image.new("RGB", (CELL, CELL))
    pen, y = ImageDraw.Draw(stripes), 0.0
    counts: list[tuple[int, Any]] = sorted(small.getcolors() or [], reverse=True)
    for count, index in counts:
        height = CELL * count / (24 * 24)
        pen.rectangle([0, round(y), CELL, round(y + height)], fill=tuple(table[3 * index : 3 * index + 3]))
        y += height
    return stripes


def credit(path: Path) -> str:
    words = path.stem.split("-")
    return " ".join(words[:2]) if words[0] != "pexels" else " ".join(words[1:3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--show-photos", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    args = parser.parse_args()
    if not args.photos.is_dir():
        parser.error(f"there is no folder {args.photos}; name a folder of photos of textures")
    photos = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)[: len(OBJECTS)]
    if not photos:
        parser.error(f"{args.photos} has no photos; put some .jpg or .png of textures there")
    p = pops.load("tiny")
    page = Image.new("RGB", (len(photos) * (CELL + GAP) + GAP, 3 * (CELL + GAP) + 2 * GAP + 14), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for k, (name, photo) in enumerate(zip(OBJECTS, photos, strict=False)):
        thing = ROOT / "examples" / "objects" / f"{name}.png"
        result = p.render(p.apply("texturing", str(thing), str(photo), seed=0), seed=0)[0]
        exemplar = load_photo(photo, size=CELL)
        rows = [load_photo(thing, size=CELL), exemplar if args.show_photos else palette(exemplar), result]
        x, y = GAP + k * (CELL + GAP), GAP
        for j, row in enumerate(rows):
            page.paste(row.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            y += CELL + GAP
            if j == 1:
                pen.text((x + CELL / 2, y + 2), credit(photo), (120, 120, 130), font=font, anchor="mm")
                y += 14
    args.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(args.out, quality=90)
    print(args.out)


if __name__ == "__main__":
    main()
