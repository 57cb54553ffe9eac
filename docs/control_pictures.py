"""The same embedding in three poses, and with words beside it: pictures for docs/controls.md.

    python docs/control_pictures.py

control.jpg, each row: the operands, the result as it comes, then three photos C of examples/poses and the result with
`--control depth=C`. prompt.jpg: the result as it comes, and with `--prompt` at smaller and smaller `--embedding-scale`.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import pops
from pops.images import load_photo

ROOT = Path(__file__).resolve().parents[1]
POSES = ROOT / "examples" / "poses"
ROWS = (("teapot", "tiger"), ("rabbit", "marble"), ("car", "polka_dots"))
PROMPTS = ("", "a frozen teapot", "a rainbow teapot", "a teapot in the snow", "a gold teapot")
SCALES = (1.0, 0.5, 0.35, 0.2)
COUNT = 3
CELL, GAP, GROUP = 112, 6, 18


def draw_poses(name: str) -> None:
    """examples/poses/NAME-1.png and on: plain things in a studio, each in a pose of its own, where they are not yet."""
    import random

    from pops.toybox.draw import draw, to_image
    from pops.toybox.poses import posed
    from pops.toybox.words import parse_caption

    POSES.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"poses of a {name}")
    for k in range(1, COUNT + 1):
        spec = posed(parse_caption(f"a {name}", seed=k), rng)
        path = POSES / f"{name}-{k}.png"
        if not path.exists():
            to_image(draw(spec, 96)).save(path)


def draw_prompts(p: pops.Pops) -> None:
    """A row a weight of the embedding, a column a prompt."""
    a, b = ROOT / "examples" / "objects" / "teapot.png", ROOT / "examples" / "textures" / "tiger.png"
    e = p.apply("texturing", str(a), str(b), seed=0)
    page = Image.new("RGB", (len(PROMPTS) * (CELL + GAP) + GAP, len(SCALES) * (CELL + GAP) + GAP), "white")
    for row, scale in enumerate(SCALES):
        for column, prompt in enumerate(PROMPTS):
            picture = p.render(e, seed=0, prompt=prompt, scale=scale)[0].resize((CELL, CELL), Image.Resampling.LANCZOS)
            page.paste(picture, (GAP + column * (CELL + GAP), GAP + row * (CELL + GAP)))
    page.save(ROOT / "docs" / "pictures" / "prompt.jpg", quality=88)


def main() -> None:
    p = pops.load("tiny")
    draw_prompts(p)
    width = (3 + 2 * COUNT) * (CELL + GAP) + (COUNT + 1) * GROUP
    page = Image.new("RGB", (width, len(ROWS) * (CELL + GAP) + GAP), "white")
    for row, (name, texture) in enumerate(ROWS):
        draw_poses(name)
        a, b = ROOT / "examples" / "objects" / f"{name}.png", ROOT / "examples" / "textures" / f"{texture}.png"
        e = p.apply("texturing", str(a), str(b), seed=0)
        cells = [[load_photo(a, size=CELL), load_photo(b, size=CELL), p.render(e, seed=0)[0]]]
        for k in range(1, COUNT + 1):
            pose = str(POSES / f"{name}-{k}.png")
            cells.append([load_photo(pose, size=CELL), p.render(e, seed=0, control={"depth": pose})[0]])
        x = GAP
        for group in cells:
            for picture in group:
                page.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, GAP + row * (CELL + GAP)))
                x += CELL + GAP
            x += GROUP
    page.save(ROOT / "docs" / "pictures" / "control.jpg", quality=88)


if __name__ == "__main__":
    main()
