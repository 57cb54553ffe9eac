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


def numbered(path: Path, count: int) -> list[Path]:
    """Returns the names of several files: out.png, or out-0.png, out-1.png, ..."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(count)]
