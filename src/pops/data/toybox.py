"""The teacher whose answers are exact: examples drawn in toybox, the procedural world that trained `tiny`.

Of the test split every example shows a combination (say, of object and material) that the other splits never show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pops.data.teachers import Sample
from pops.errors import ensure

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

ROLES = {
    "texturing": ("object", "texture"),
    "union": ("a", "b"),
    "scene": ("object", "scene"),
    "instruct": ("object", "word"),
}
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
        """Draws the one triplet of a seed."""
        import torch

        from pops.toybox.draw import draw_swatch
        from pops.toybox.pairs import draw_alike, triplet
        from pops.toybox.world import SceneSpec, SwatchSpec

        drawn = triplet(operator, seed % SEEDS, "test" if split == "test" else "train")
        scenes = [o for o in (*drawn.operands, drawn.result) if isinstance(o, SceneSpec)]
        with torch.no_grad():
            pictures = dict(zip(map(id, scenes), draw_alike(scenes, self.size)[0], strict=True))
            swatches = {id(o): draw_swatch(o, self.size) for o in drawn.operands if isinstance(o, SwatchSpec)}
        images, texts = {}, {}
        for role, operand in zip(ROLES[operator], drawn.operands, strict=True):
            if isinstance(operand, str):
                texts[role] = operand
            else:
                images[role] = _image((pictures | swatches)[id(operand)])
        return [Sample(images, texts, _image(pictures[id(drawn.result)]))]


def _image(pixels: Tensor) -> Image.Image:
    """Makes an image of uint8 [3, side, side]."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def load(size: int | None = None, **_: Any) -> ToyboxTeacher:
    """Makes the teacher; it needs no models."""
    return ToyboxTeacher(size or 96)
