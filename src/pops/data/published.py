"""The teacher of the published recipes: pictures by diffusion models, cut and filtered by detection and masks.

Each recipe is one function of its tools and random numbers; the tools are handed in (see pops.data.tools).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data import filters
from pops.data.teachers import Rejected, Sample
from pops.data.tools import DEFAULTS, Tools
from pops.data.words import (
    ADJECTIVES,
    ART_TYPES,
    COLOURS,
    GARMENTS,
    OBJECTS,
    PEOPLE,
    PLACEMENTS,
    TEXTURES,
)

if TYPE_CHECKING:
    from PIL import Image

REPAINTS = 5  # of one object in texturing
MOST_ATTRIBUTES = 5  # of one repaint's texture
MOST_GARMENTS = 6  # of a made person
# Operator -> the tools that its recipe uses.
NEEDS = {
    "texturing": ("draw", "detector", "matting", "depth"),
    "union": ("draw", "detector", "matting"),
    "scene": ("draw", "detector", "matting", "inpaint"),
    "instruct": ("draw",),
    "clothes": ("draw", "parser"),
}


class Published:
    """Makes samples by the published recipes."""

    name = "diffusion"
    operators = tuple(NEEDS)

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def about(self, operator: str) -> Mapping[str, Any]:
        """Returns the models that the recipe uses, with their licences, and the filters' limits."""
        limits = {k.lower(): getattr(filters, k) for k in ("SCORE", "OVERLAP", "AREA", "LEAST_CROP", "DILATED")}
        return {"size": self.tools.size, "models": self.tools.about(NEEDS[operator]), "filters": limits}

    def make(self, operator: str, seed: int, split: str) -> Sequence[Sample]:
        """Makes the samples of one seed; Rejected if a filter refuses one."""
        recipe = {
            "texturing": texturing, "union": union, "scene": scene, "instruct": instruct, "clothes": clothes
        }[operator]  # fmt: skip
        return recipe(self.tools, random.Random(seed))


def texturing(tools: Tools, rng: random.Random) -> list[Sample]:
    """One object in several textures: the result is one repaint, the object another, the texture a crop of it."""
    name, prompt = _one(rng)
    base = tools.draw(prompt, _seed(rng))
    box = filters.best(tools.find(base, [name]), name, base.width)
    filters.crop_sides(box, base.width)
    mask = filters.checked_mask(tools.mask(base, box))
    painted: list[tuple[str, Image.Image]] = []
    for _ in range(REPAINTS):
        made_from = ", ".join(rng.sample(TEXTURES, rng.randint(1, MOST_ATTRIBUTES)))
        text = f"a {name} made from {made_from}"
        painted.append((text, tools.repaint(base, text, _seed(rng))))
    samples = []
    for k, (text, result) in enumerate(painted):
        texture = filters.exemplar(result, mask, box, rng)
        other = painted[(k + rng.randint(1, REPAINTS - 1)) % REPAINTS][1]
        samples.append(Sample({"object": other, "texture": texture}, {}, result, extra={"prompt": text}))
    return samples


def union(tools: Tools, rng: random.Random) -> list[Sample]:
    """A picture of two objects, each cut out onto white, in random order."""
    a, b = rng.sample(OBJECTS, 2)
    prompt = f"a photo of {_article(a)} and {_article(b)} {rng.choice(PLACEMENTS)}"
    result = tools.draw(prompt, _seed(rng))
    found = tools.find(result, [a, b])
    boxes = [filters.best(found, name, result.width) for name in (a, b)]
    filters.apart(*boxes)
    alone = [filters.pasted(result, filters.checked_mask(_within(tools.mask(result, box), box)), rng) for box in boxes]
    if rng.random() < 0.5:
        alone.reverse()
    return [Sample({"a": alone[0], "b": alone[1]}, {}, result, extra={"prompt": prompt})]


def scene(tools: Tools, rng: random.Random) -> list[Sample]:
    """An object in a place: the place alone is painted over the object, which is cut out onto white or elsewhere."""
    name, prompt = _one(rng)
    result = tools.draw(prompt, _seed(rng))
    box = filters.best(tools.find(result, [name]), name, result.width)
    mask = filters.checked_mask(tools.mask(result, box))
    place = prompt.removeprefix(f"{_article(name)} ")
    empty = tools.fill(result, filters.dilated(mask), f"an empty place {place}", _seed(rng))
    behind = tools.draw(f"an empty place {rng.choice(PLACEMENTS)}", _seed(rng)) if rng.random() < 0.5 else None
    alone = filters.pasted(result, mask, rng, behind)
    return [Sample({"object": alone, "scene": empty}, {}, result, extra={"prompt": prompt})]


def instruct(tools: Tools, rng: random.Random) -> list[Sample]:
    """An object and one word; the result is a text alone: "A {adjective} {object}", or half of the time an art type."""
    name, prompt = _one(rng)
    word = rng.choice(ADJECTIVES) if rng.random() < 0.5 else rng.choice(ART_TYPES)
    caption = f"A {word} of a {name}" if word in ART_TYPES else f"A {word} {name}"
    picture = tools.draw(prompt, _seed(rng))
    return [Sample({"object": picture}, {"word": word}, None, caption, {"prompt": prompt})]


def clothes(tools: Tools, rng: random.Random) -> list[Sample]:
    """A person, and each garment that human parsing finds, cut out onto white."""
    kinds = rng.sample(tuple(GARMENTS), rng.randint(2, len(GARMENTS)))
    worn = [f"{rng.choice(COLOURS)} {rng.choice(GARMENTS[kind])}" for kind in kinds]
    prompt = f"full body photo of a {rng.choice(PEOPLE)} wearing {', '.join(worn)}, {rng.choice(PLACEMENTS)}"
    result = tools.draw(prompt, _seed(rng))
    least = filters.AREA / 2 * (result.width / filters.FULL) ** 2
    garments = [m for m in tools.parse(result).values() if m.histogram()[255] > least]
    if len(garments) < 2:
        raise Rejected("garments")
    cut = [filters.pasted(result, mask, rng) for mask in garments[:MOST_GARMENTS]]
    rng.shuffle(cut)
    images = {f"garment_{k + 1}": cut[k] if k < len(cut) else None for k in range(MOST_GARMENTS)}
    return [Sample(images, {}, result, extra={"prompt": prompt})]


def _one(rng: random.Random) -> tuple[str, str]:
    """Draws an object's name and its prompt."""
    name = rng.choice(OBJECTS)
    return name, f"{_article(name)} {rng.choice(PLACEMENTS)}"


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _seed(rng: random.Random) -> int:
    return rng.randrange(2**31)


def _within(mask: Image.Image, box: filters.Box) -> Image.Image:
    """Returns the mask with all outside a box cleared."""
    from PIL import Image

    place = (int(box.left), int(box.top), int(box.right), int(box.bottom))
    cleared = Image.new("L", mask.size)
    cleared.paste(mask.crop(place), place[:2])
    return cleared


def load(
    size: int | None = None, tools: Mapping[str, str | Path] | None = None, device: str = "auto", **_: Any
) -> Published:
    """Makes the teacher; each model is read when it is first used."""
    return Published(Tools({**DEFAULTS, **(tools or {})}, size=size or 512, device=device))
