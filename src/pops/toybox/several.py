"""The exact answer of union for three and four operands: all of them in a row, in the studio of the first."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

from pops.toybox.world import (
    CORE,
    SceneSpec,
    Vocabulary,
    held_out,
    in_a_row,
    named_material,
    plain_material,
    sample_camera,
    sample_object,
    sample_setting,
)

COUNTS = {"union_3": 3, "union_4": 4}  # operands of these cases of union


def company_of(
    count: int, seed: str, test: bool, names: Vocabulary = CORE
) -> tuple[tuple[SceneSpec, ...], SceneSpec]:  # fmt: skip
    """Draws objects, each alone in a studio, and the true result; test: two of them are held out, else none are."""
    rng = random.Random(seed)
    while True:
        kinds = rng.sample(names.categories, count)
        if any(held_out("object", a, b) for a, b in combinations(kinds, 2)) == test:
            break
    alone = []
    for kind in kinds:
        material = plain_material(kind, rng)
        if rng.random() < 0.5:
            material = named_material(
                rng.choice([m for m in names.materials if not held_out("material", kind, m)]), rng
            )
        thing = sample_object(rng, kind, material)
        alone.append(SceneSpec((thing,), *sample_setting(rng, "studio"), sample_camera(rng)))
    return tuple(alone), replace(alone[0], objects=in_a_row(*(s.objects[0] for s in alone)))
