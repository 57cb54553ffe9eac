"""The teacher whose answers are exact: examples drawn in toybox, the procedural world that trained `tiny`.

Of the test split every example shows a combination (say, of object and material) that the other splits never show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pops.data.teachers import Sample
from pops.errors import ensure

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.toybox.pairs import Triplet

ROLES = {
    "texturing": ("object", "texture"),
    "union": ("a", "b"),
    "scene": ("object", "scene"),
    "instruct": ("object", "word"),
    "clothes": tuple(f"garment_{k}" for k in range(1, 13)),  # the first shows who wears the others
}
REPAINTS = 4  # rows of one item of clothes: the same shapes and places in other materials
ANYBODY = 0.15  # share of training rows of clothes that do not show who wears the garments
SEEDS = 2**39  # toybox keeps larger seeds for its test split


class ToyboxTeacher:
    """Draws triplets of toybox, size x size pixels."""

    name = "toybox"
    operators = tuple(ROLES)

    def __init__(self, size: int) -> None:
        ensure(16 <= size <= 2048 and size % 2 == 0, f"--size must be even, from 16 to 2048, got {size}")
        self.size = size

    def about(self, operator: str) -> Mapping[str, Any]:
        """Returns the size; there is nothing else that examples depend on."""
        return {"size": self.size, "models": {}, "licence": "CC0-1.0"}

    def make(self, operator: str, seed: int, split: str) -> Sequence[Sample]:
        """Draws the one triplet of a seed; of clothes REPAINTS of them."""
        import random

        import torch

        from pops.toybox.clothes import repainted
        from pops.toybox.draw import draw_swatch
        from pops.toybox.pairs import Triplet, draw_alike, triplet
        from pops.toybox.world import SceneSpec, SwatchSpec

        drawn = [triplet(operator, seed % SEEDS, "test" if split == "test" else "train")]
        if operator == "clothes":
            rng, scenes = random.Random(f"repainted {seed}"), [o for o in drawn[0].operands if isinstance(o, SceneSpec)]
            drawn += [Triplet(operator, *repainted(rng, scenes, drawn[0].result)) for _ in range(REPAINTS - 1)]
            if split == "train":
                bare = [rng.random() < ANYBODY for _ in drawn]
                drawn = [replace(t, operands=t.operands[b:]) for t, b in zip(drawn, bare, strict=True)]
        every = [o for t in drawn for o in (*t.operands, t.result)]
        scenes = [o for o in every if isinstance(o, SceneSpec)]
        with torch.no_grad():
            pictures = dict(zip(map(id, scenes), draw_alike(scenes, self.size)[0], strict=True))
            swatches = {id(o): draw_swatch(o, self.size) for o in every if isinstance(o, SwatchSpec)}
        return [_sample(t, ROLES[operator], pictures | swatches) for t in drawn]


def _sample(drawn: Triplet, roles: Sequence[str], pictures: Mapping[int, Tensor]) -> Sample:
    """Makes the sample of a triplet; pictures: by the id of each of its specs. Roles that are left over are missing."""
    images: dict[str, Image.Image | None] = dict.fromkeys(roles)
    texts = {}
    for role, operand in zip(roles, drawn.operands, strict=False):
        if isinstance(operand, str):
            texts[role] = operand
            del images[role]
        else:
            images[role] = _image(pictures[id(operand)])
    return Sample(images, texts, _image(pictures[id(drawn.result)]))


def _image(pixels: Tensor) -> Image.Image:
    """Makes an image of uint8 [3, side, side]."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def load(size: int | None = None, **_: Any) -> ToyboxTeacher:
    """Makes the teacher; it needs no models."""
    return ToyboxTeacher(size or 96)
