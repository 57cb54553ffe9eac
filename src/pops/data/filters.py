"""The published recipes' filters and cuts, on boxes and masks: scores, overlaps, areas, crops, dilation, pasting.

Lengths and areas are the published ones, for pictures of 512 pixels; they grow and shrink with the picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFilter

from pops.data.teachers import Rejected

FULL = 512  # pixels: the side that lengths and areas here are for
SCORE = 0.2  # least score of a detection
OVERLAP = 0.1  # largest intersection over union of two objects
AREA = 5000  # least pixels of an object's box
LEAST_CROP = 96  # pixels: shortest side of a texture's exemplar
FILLED = 0.98  # share of an exemplar that must lie inside the mask
PLACES = 200  # draws of an exemplar's place
DILATED = 31  # pixels that an object's mask grows by before the object is removed
PASTED = (0.8, 0.95)  # of a white square's side, that a cut-out takes
SHARE = (0.02, 0.9)  # of the picture, that a mask may cover


@dataclass(frozen=True)
class Box:
    """A detection, in pixels; right and bottom are outside."""

    name: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def overlap(self, other: Box) -> float:
        """Returns the intersection over the union, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        both = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - both
        return both / union if union > 0 else 0.0


def best(boxes: Sequence[Box], name: str, side: int = FULL) -> Box:
    """Returns the detection of a name with the highest score; Rejected by "score" or "area" if none is good."""
    found = [box for box in boxes if box.name == name and box.score > SCORE]
    if not found:
        raise Rejected("score")
    box = max(found, key=lambda box: box.score)
    if box.area <= AREA * (side / FULL) ** 2:
        raise Rejected("area")
    return box


def apart(a: Box, b: Box) -> None:
    """Rejected by "overlap" if two objects cover each other."""
    if a.overlap(b) >= OVERLAP:
        raise Rejected("overlap")


def checked_mask(mask: Image.Image) -> Image.Image:
    """Returns a mask with the values 0 and 255 alone; Rejected by "mask" if it covers next to nothing, or all."""
    binary = mask.convert("L").point([0] * 128 + [255] * 128)
    share = binary.histogram()[255] / (binary.width * binary.height)
    if not SHARE[0] <= share <= SHARE[1]:
        raise Rejected("mask")
    return binary


def crop_sides(box: Box, width: int) -> tuple[int, int]:
    """Returns the least and the greatest side of an exemplar from this box of a picture; Rejected by "crop" if none
    fits, which needs no repainting to know.
    """
    longest, least = int(min(box.right - box.left, box.bottom - box.top) / 2), max(1, round(LEAST_CROP * width / FULL))
    if longest < least:
        raise Rejected("crop")
    return least, longest


def exemplar(picture: Image.Image, mask: Image.Image, box: Box, rng: random.Random) -> Image.Image:
    """Cuts a square out of what the mask shows, its side between LEAST_CROP and half the box; Rejected by "crop"."""
    least, longest = crop_sides(box, picture.width)
    for _ in range(PLACES):
        side = rng.randint(least, longest)
        left = rng.randint(max(0, int(box.left)), max(0, int(box.left), int(box.right) - side))
        top = rng.randint(max(0, int(box.top)), max(0, int(box.top), int(box.bottom) - side))
        place = (left, top, left + side, top + side)
        inside = left + side <= picture.width and top + side <= picture.height
        if inside and mask.crop(place).histogram()[255] >= FILLED * side * side:
            return picture.crop(place)
    raise Rejected("crop")


def dilated(mask: Image.Image) -> Image.Image:
    """Returns the mask grown by a square of DILATED pixels."""
    pixels = max(3, round(DILATED * mask.width / FULL))
    return mask.filter(ImageFilter.MaxFilter(pixels + 1 - pixels % 2))


def pasted(
    picture: Image.Image, mask: Image.Image, rng: random.Random, behind: Image.Image | None = None
) -> Image.Image:
    """Cuts out what the mask shows and pastes it, at PASTED of the side, into a white square or onto `behind`.

    Rejected by "mask" if the mask is empty.
    """
    bounds = mask.getbbox()
    if bounds is None:
        raise Rejected("mask")
    cut, shape = picture.crop(bounds), mask.crop(bounds)
    side = max(picture.size)
    if behind is None:
        square = Image.new("RGB", (side, side), "white")
    else:
        square = behind.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    scale = rng.uniform(*PASTED) * side / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    place = ((side - size[0]) // 2, (side - size[1]) // 2)
    square.paste(cut.resize(size, Image.Resampling.LANCZOS), place, shape.resize(size, Image.Resampling.BILINEAR))
    return square
