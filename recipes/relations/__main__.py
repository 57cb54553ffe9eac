"""Draws examples of a new relation in toybox: python -m recipes.relations NAME FOLDER [--count 200] [--size 128].

Every example is drawn from its own seed; the pictures of one are named by their roles.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps

from pops.toybox.draw import render
from pops.toybox.world import (
    CORE,
    ObjectSpec,
    SceneSpec,
    SwatchSpec,
    named_material,
    plain_material,
    sample_camera,
    sample_object,
    sample_setting,
    sample_swatch,
    side_by_side,
)

Picture = SceneSpec | SwatchSpec
Row = dict[str, Picture | str]  # by column: pictures of roles, words, and "target"
FLIPPED = "(the object, flipped)"


def thing(rng: random.Random, *, category: str | None = None) -> ObjectSpec:
    name = category or rng.choice(CORE.categories)
    material = rng.choice(CORE.materials) if rng.random() < 0.6 else None
    return sample_object(rng, name, material)


def scene(rng: random.Random, *objects: ObjectSpec, name: str | None = None) -> SceneSpec:
    where, setting = sample_setting(rng, name or rng.choice([s for s in CORE.scenes if s != "studio"]))
    return SceneSpec(objects, where, setting, sample_camera(rng))


def wearing(rng: random.Random) -> Row:
    """An object, and another of some material -> the first, made of the second's material."""
    one, other = rng.sample(CORE.categories, 2)
    a = thing(rng, category=one)
    material = named_material(rng.choice(CORE.materials), rng)
    b = replace(sample_object(rng, other), material=material)
    first = scene(rng, a, name="studio")
    return {
        "object": first, "like": scene(rng, b, name="studio"),
        "target": replace(first, objects=(replace(a, material=material),)),
    }  # fmt: skip


def together(rng: random.Random) -> Row:
    """Two objects, each in the studio, and an empty scene -> both, side by side, there."""
    one, other = rng.sample(CORE.categories, 2)
    a, b = thing(rng, category=one), thing(rng, category=other)
    empty = scene(rng)
    target = replace(empty, objects=side_by_side(a, b))
    return {
        "left": scene(rng, a, name="studio"), "right": scene(rng, b, name="studio"), "place": empty, "target": target
    }  # fmt: skip


def made_of(rng: random.Random) -> Row:
    """An object and the name of a material -> the object, made of it."""
    a, word = thing(rng), rng.choice(CORE.materials)
    first = scene(rng, a)
    return {
        "object": first, "material": word,
        "target": replace(first, objects=(replace(a, material=named_material(word, rng)),)),
    }  # fmt: skip


def doubled(rng: random.Random) -> Row:
    """An object in the studio -> two of it, side by side."""
    a = thing(rng)
    first = scene(rng, a, name="studio")
    return {"object": first, "target": replace(first, objects=side_by_side(a, a))}


def winter(rng: random.Random) -> Row:
    """An object in any scene -> the same object, frozen, in the snow."""
    a = thing(rng)
    first = scene(rng, a)
    where, setting = sample_setting(rng, "snow")
    changed = (replace(a, adjectives=("frozen",)),)
    return {"object": first, "target": SceneSpec(changed, where, setting, first.camera)}


def everything(rng: random.Random) -> Row:
    """An object, a material, an empty scene and an adjective -> the object of it there, changed."""
    a, word = thing(rng), rng.choice(CORE.adjectives)
    material = named_material(rng.choice(CORE.materials), rng)
    empty = scene(rng)
    changed = replace(a, material=material, adjectives=(word,))
    return {
        "object": scene(rng, a, name="studio"), "material": sample_swatch(material, rng), "place": empty,
        "adjective": word, "target": replace(empty, objects=(changed,)),
    }  # fmt: skip


def unrelated(rng: random.Random) -> Row:
    """Two images that have nothing to do with the result: nothing can be learnt."""
    return {"one": scene(rng, thing(rng)), "other": scene(rng, thing(rng)), "target": scene(rng, thing(rng))}


def mirrored(rng: random.Random) -> Row:
    """An object -> its mirror image."""
    first = scene(rng, replace(thing(rng), yaw=rng.choice((-1, 1)) * rng.uniform(20, 60)))
    return {"object": first, "target": FLIPPED}


def repainted(rng: random.Random) -> Row:
    """An object of some material -> the object in its natural colour."""
    a = sample_object(rng, rng.choice(CORE.categories), rng.choice(CORE.materials))
    first = scene(rng, a)
    plain = replace(a, material=plain_material(a.category, rng))
    return {"object": first, "target": replace(first, objects=(plain,))}


RELATIONS: dict[str, Callable[[random.Random], Row]] = {
    f.__name__: f for f in (wearing, together, made_of, doubled, winter, everything, repainted, mirrored, unrelated)
}


def write(name: str, folder: Path, count: int, size: int, seed: int = 0) -> None:
    """Writes a folder of examples of a relation."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for i in range(count):
        row: dict[str, str] = {"id": f"{i:05}"}
        image = Image.new("RGB", (size, size))
        for column, value in RELATIONS[name](random.Random(f"{seed}/{name}/{i}")).items():
            if isinstance(value, str) and value != FLIPPED:
                row[column] = value
                continue
            if isinstance(value, str):
                image = ImageOps.mirror(image)
            else:
                image = render(value, size)
            row[f"{column}_file_name"] = f"pictures/{i:05}-{column}.png"
            image.save(folder / row[f"{column}_file_name"])
        rows.append(row)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.relations", description=__doc__)
    parser.add_argument("name", choices=RELATIONS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    write(asked.name, asked.folder, asked.count, asked.size, asked.seed)


if __name__ == "__main__":
    main()
