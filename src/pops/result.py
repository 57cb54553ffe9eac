"""Result: the images that a recipe made, and what else there is to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pops.caution import Caution
from pops.errors import ConfigError, ensure
from pops.files import expanded
from pops.recipe import Recipe

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.trace import Trace


@dataclass(eq=False, repr=False)
class Result(list["Image.Image"]):
    """A list of the images, each with its recipe in `info["pops"]`.

    recipe: what was asked, complete: with what was loaded, the inputs' digests and all versions. trace: every node of
    the expression (None of a grid over settings). figures: "tree", "equation" and "grid", where they were asked for.
    latents: of a mix, one per image. notes: what the user should read. numbers: of the images among all of the
    recipe's, counted from 0. warnings: operands unlike all that the model was trained on.
    """

    images: Sequence[Image.Image]
    recipe: Recipe
    trace: Trace | None = None
    figures: Mapping[str, Image.Image] = field(default_factory=dict)
    latents: Sequence[Tensor] = ()
    notes: Sequence[str] = ()
    numbers: Sequence[int] = ()
    warnings: Sequence[Caution] = ()

    def __post_init__(self) -> None:
        list.__init__(self, self.images)

    def __repr__(self) -> str:
        return f"Result({len(self)} images of {self.recipe.expression!r})"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the images as thumbnails with their seeds, notes and figures."""
        from pops.notebook import block, code, gallery, line

        shown = self.recipe.shows if self.recipe.shows != "image" else "grid" if self.recipe.sweep else ""
        captions = [shown or _caption(image, i) for i, image in enumerate(self)]
        count = f"{len(self)} image{'' if len(self) == 1 else 's'}"
        size = f"{self[0].width} x {self[0].height}" if self else ""
        wide = 640 if shown else None
        return block(
            f"<b>Result</b>{line(count, size)}",
            code(self.recipe.expression),
            gallery(self, captions, width=wide) if self else "",
            "".join(gallery([figure], [name], width=640) for name, figure in self.figures.items()) if not shown else "",
            *(line(f"note: {note}") for note in self.notes),
        )

    def save(self, path: str | Path, *, recipe: bool = True) -> list[Path]:
        """Writes every image with its recipe (.png, .jpg or .webp); of several NAME-0.png, NAME-1.png, ...

        recipe: False leaves it out. Returns the paths; raises PhotoError for another suffix, ConfigError where an image
        would overwrite a file that it was made of.
        """
        from pops.images import save_picture

        paths = numbered(Path(path), len(self))
        inputs = {expanded(one).resolve() for one in self.recipe.inputs}
        for place in paths:
            told = f"{place} is an operand of the expression; write to another file"
            ensure(place.resolve() not in inputs, told, ConfigError)
        for place, image in zip(paths, self, strict=True):
            save_picture(image, place, image.info["pops"] if recipe else None)
        return paths


def _caption(image: Image.Image, index: int) -> str:
    """Returns "[2] seed 7", from the image's own recipe."""
    try:
        recipe = Recipe.of_data(image.info["pops"], "the image")
    except (KeyError, ConfigError):  # an image that was put into the list by hand
        return f"[{index}]"
    seeds, number = recipe.rendering.seeds or recipe.seeds, recipe.image or 0
    row, j = divmod(number, recipe.num_images)
    return f"[{index}] seed {seeds[row if len(seeds) > 1 else 0] + j}"


def numbered(path: Path, count: int) -> list[Path]:
    """Returns the names of several files: out.png, or out-0.png, out-1.png, ..."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(count)]
