"""Makes the pictures of the studio's worked examples: `python studio/gallery.py`, after EXAMPLES or tiny has changed.

Each is what `tiny` makes on this machine, as a WebP of quality 85, with its recipe inside.
tests/server/test_gallery.py says when they are out of date.
"""

from __future__ import annotations

import pops
from pops import examples
from pops.recipe import SHIPPED, Recipe
from pops.server.gallery import EXAMPLES, PICTURES
from pops.server.references import renamed


def main() -> None:
    """Runs the script."""
    home = f"{examples.folder()}/"
    model = pops.load(SHIPPED)
    PICTURES.mkdir(exist_ok=True)
    for path in PICTURES.glob("*.webp"):
        path.unlink()
    for name, _, expression in EXAMPLES:
        asked = renamed(Recipe(expression=expression), lambda file: home + file)
        (image,) = model.run(asked).images
        made = Recipe.of_data(image.info["pops"], "the image")
        inputs = {file.removeprefix(home): digest for file, digest in made.inputs.items()}
        told = made.model_copy(update={"expression": expression, "inputs": inputs})
        path = PICTURES / f"{name}.webp"
        told.attach(image).save(path, quality=85, method=6)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
