"""Makes every picture that the README and the docs show, by the commands they show.

python docs/pictures.py            # all; or the names of some
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
OBJECTS, TEXTURES, SCENES = "examples/objects", "examples/textures", "examples/scenes"

# name -> (expression, more arguments of `pops run`); each is drawn as an equation, ideas as a contact sheet
EQUATIONS: dict[str, tuple[str, list[str]]] = {
    "texturing": (f"texturing({OBJECTS}/teapot.png, {TEXTURES}/tiger.png)", []),
    "union": (f"union({OBJECTS}/dog.png, {OBJECTS}/hat.png)", []),
    "scene": (f"scene({OBJECTS}/car.png, {SCENES}/beach.png)", []),
    "instruct": (f'instruct({OBJECTS}/rabbit.png, "golden")', []),
    "tree": (f"scene(texturing({OBJECTS}/elephant.png, {TEXTURES}/brick.png), {SCENES}/snow.png)", []),
    "partial": (f"texturing({OBJECTS}/mug.png, _)", ["--seed", "0,1,2,3"]),
    "text": ('text("a marble rabbit")', ["--seed", "6"]),
    "sum": (f"0.5*{OBJECTS}/teapot.png + 0.5*{OBJECTS}/pumpkin.png", []),
}
STRENGTHS = (0, 0.5, 1, 1.5, 2)
WORDS = (("castle", "mossy"), ("car", "burning"), ("teapot", "melting"))


def pops(*arguments: str) -> None:
    force = [] if arguments[0] == "toybox" else ["--force"]
    subprocess.run([sys.executable, "-m", "pops.cli.main", *arguments, *force], cwd=ROOT, check=True)


def lighten(path: Path, quality: int = 75) -> None:
    """The large pictures again, in half the bytes: the repository is to stay small."""
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, quality=quality)


def draw_strengths(side: int = 160) -> None:
    """A row a word, a column a strength."""
    from pops import load
    from pops.figures.grid import grid_figure, labels

    p = load("tiny")
    images = [
        p(f'instruct({OBJECTS}/{thing}.png, "{word}", strength={strength})')[0].resize((side, side))
        for thing, word in WORDS
        for strength in STRENGTHS
    ]
    figure = grid_figure(images, labels("strength", STRENGTHS), [word for _, word in WORDS])
    figure.save(OUT / "strength.jpg", quality=85)


def main(names: list[str]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (expression, more) in EQUATIONS.items():
        if not names or name in names:
            figure = "--grid" if name == "partial" else "--equation"
            pops("run", expression, "-o", f"out/{name}.png", figure, f"docs/pictures/{name}.jpg", *more)
    if not names or "strength" in names:
        draw_strengths()
    if not names or "tree" in names:
        expression = EQUATIONS["tree"][0]
        pops("run", expression, "-o", "out/tree.png", "--tree", "docs/pictures/generative_tree.jpg")
    if "toybox" in names or not (names or (OUT / "toybox.jpg").exists()):
        pops("toybox", "--contact-sheet", "docs/pictures/toybox.jpg")
        lighten(OUT / "toybox.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])
