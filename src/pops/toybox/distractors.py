"""Hard negatives: images that share one operand with a triplet's true result, and differ in the other.

Whoever answers with what one operand alone says cannot tell the truth from them.
"""

from __future__ import annotations

import random
from dataclasses import replace

from pops.toybox.pairs import Triplet
from pops.toybox.world import (
    CORE,
    ObjectSpec,
    SceneSpec,
    Vocabulary,
    named_material,
    plain_material,
    sample_object,
    sample_setting,
    side_by_side,
)

EACH = 3  # of each kind


def distractors(
    t: Triplet, seed: int, each: int = EACH, names: Vocabulary = CORE
) -> tuple[list[SceneSpec], list[SceneSpec]]:
    """Returns results that share the first operand with the truth, and results that share the second: `each` of both.

    Of texturing: the same object in other materials; other objects in the same material. Of union: the first object
    with other partners; others with the second object. Of scene: the same object in other scenes; other objects in the
    same scene. Of instruct: the same object with other adjectives; other objects with the same adjective.
    """
    rng = random.Random(f"distractors {t.operator} {seed}")
    truth = t.result
    thing = truth.objects[0]
    others = rng.sample([c for c in names.categories if c not in {o.category for o in truth.objects}], each)

    def stranger(category: str) -> ObjectSpec:
        return sample_object(rng, category, plain_material(category, rng))

    if t.operator == "texturing":
        materials = rng.sample([m for m in names.materials if m != thing.material.name], each)
        same_first = [_with(truth, replace(thing, material=named_material(m, rng))) for m in materials]
        same_second = [_with(truth, replace(stranger(c), material=thing.material)) for c in others]
    elif t.operator == "union":
        second = truth.objects[1]
        same_first = [replace(truth, objects=side_by_side(thing, stranger(c))) for c in others]
        same_second = [replace(truth, objects=side_by_side(stranger(c), second)) for c in others]
    elif t.operator == "scene":
        scenes = rng.sample([s for s in names.scenes if s not in ("studio", truth.scene)], each)
        places = [sample_setting(rng, s) for s in scenes]
        same_first = [replace(truth, scene=s, setting=setting) for s, setting in places]
        same_second = [_with(truth, stranger(c)) for c in others]
    else:
        own = thing.adjectives[0]
        adjectives = rng.sample([a for a in names.adjectives if a != own], each)
        same_first = [_with(truth, replace(thing, adjectives=(a,))) for a in adjectives]
        same_second = [_with(truth, replace(stranger(c), adjectives=(own,))) for c in others]
    return same_first, same_second


def _with(scene: SceneSpec, thing: ObjectSpec) -> SceneSpec:
    return replace(scene, objects=(thing,))
