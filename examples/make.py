"""Draws the pictures of examples/: objects in a studio, exemplars of materials, empty scenes. All are toybox's.

python examples/make.py
"""

from __future__ import annotations

import random
from pathlib import Path

from pops.toybox.draw import render
from pops.toybox.world import CORE, Camera, SceneSpec, named_material, sample_object, sample_setting, sample_swatch

HERE = Path(__file__).parent
SIZE = 256


def main() -> None:
    for kind in ("objects", "textures", "scenes"):
        (HERE / kind).mkdir(exist_ok=True)
    for name in CORE.categories:
        rng = random.Random(f"example {name}")
        spec = SceneSpec((sample_object(rng, name),), *sample_setting(rng, "studio"), Camera())
        render(spec, SIZE).save(HERE / "objects" / f"{name.replace(' ', '_')}.png")
    for name in CORE.materials:
        rng = random.Random(f"example {name}")
        picture = render(sample_swatch(named_material(name, rng), rng), SIZE)
        picture.save(HERE / "textures" / f"{name.replace(' ', '_')}.png")
    for name in CORE.scenes:
        rng = random.Random(f"example {name}")
        render(SceneSpec((), *sample_setting(rng, name), Camera(azimuth=3)), SIZE).save(
            HERE / "scenes" / f"{name.replace(' ', '_')}.png"
        )


if __name__ == "__main__":
    main()
