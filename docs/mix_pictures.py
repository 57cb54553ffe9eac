"""Makes the pictures of docs/magicmix.md: each recipe as a strip, and the grids over nu and over strength.

python docs/mix_pictures.py            # all; or the names of some
python docs/mix_pictures.py --list     # the commands, as the page shows them
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
OBJECTS, TEXTURES, SCENES = "examples/objects", "examples/textures", "examples/scenes"
RABBIT, TEAPOT, DOG, TIGER = (
    f"{OBJECTS}/rabbit.png",
    f"{OBJECTS}/teapot.png",
    f"{OBJECTS}/dog.png",
    f"{TEXTURES}/tiger.png",
)
CLOSE = "nu=0.7, k_min=0.1, k_max=0.7"  # the preset style: the layout's shape in fine detail
FREE = CLOSE  # the preset object: a new object in the layout's place
FREER = "nu=0.9, k_min=0.1, k_max=0.7"
BREED = "nu=0.8, k_min=0.2, k_max=0.7"
REMOVE = 'reach="text", nu=1, k_min=0.3, k_max=0.9'

# name -> (expression, seed); each is drawn as an equation, layout and content before the =
RECIPES: dict[str, tuple[str, int]] = {
    "rabbit-tiger": (f'mix({RABBIT}, "tiger")', 0),
    "teapot-cactus": (f'mix({TEAPOT}, "a cactus", {FREER})', 4),
    "dog-coffee-machine": (f'mix({DOG}, "a coffee machine", nu=0.95, k_min=0.2, k_max=0.85)', 0),
    "breed": (f'mix({RABBIT}, "a cat", {BREED})', 1),
    "texts": ('mix("a house", "a mushroom", nu=0.95, k_min=0.1, k_max=0.85)', 1),
    "photos": (f"mix({RABBIT}, {OBJECTS}/cat.png, {FREE})", 1),
    "expression": (f"mix({RABBIT}, texturing({TEAPOT}, {TIGER}), {CLOSE})", 0),
    "inside": (f'texturing(mix({TEAPOT}, "a cactus", {FREER}), {TIGER})', 0),
    "style": (f'mix({OBJECTS}/house.png, "an ice house", nu=0.98, k_min=0.1, k_max=0.7)', 0),
    "removal": (f'mix(texturing({TEAPOT}, {TIGER}), "a tiger:-0.5 teapot", {REMOVE})', 0),
}
# name -> arguments of pops mix
GRIDS: dict[str, list[str]] = {
    "grid-nu": [RABBIT, "tiger", "--sweep", "nu=0:1:6", "--k-min", "0.1", "--k-max", "0.7"],
    "grid-strength": [RABBIT, "a tiger rabbit", "--sweep", "strength=0:2:6", "--reach", "text", "--preset", "style"],
    "grid-window": [RABBIT, "tiger", "--sweep", "nu=0.1:0.9:5", "--sweep", "k_max=0.4:0.8:3"],
}


def commands() -> dict[str, list[str]]:
    """name -> the arguments of pops"""
    made = {}
    for name, (expression, seed) in RECIPES.items():
        strip = ["--equation", f"docs/pictures/mix-{name}.jpg", "--seed", str(seed)]
        made[name] = ["run", expression, "-o", f"out/mix-{name}.png", *strip]
    for name, arguments in GRIDS.items():
        made[name] = ["mix", *arguments, "-o", f"docs/pictures/mix-{name}.jpg"]
    return made


def lighten(path: Path, quality: int = 85) -> None:
    """The grid again, in half the bytes. Its recipe goes: the command stands on the page."""
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, quality=quality)


def main(words: list[str]) -> None:
    for name, arguments in commands().items():
        if "--list" in words:
            print(f"pops {shlex.join(arguments)}")
        elif not words or name in words:
            subprocess.run([sys.executable, "-m", "pops.cli.main", *arguments, "--force"], cwd=ROOT, check=True)
            if name in GRIDS:
                lighten(OUT / f"mix-{name}.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])
