"""Hard negatives: images that share one operand with a triplet's true result, and differ in the other.

Whoever answers with what one operand alone says cannot tell the truth from them.
"""

from __future__ import annotations

import random
from dataclasses import replace

from pops.toybox import clothes, several
from pops.toybox.pairs import Triplet
from pops.toybox.world import (
    CORE,
    ObjectSpec,
    SceneSpec,
    Vocabulary,
    in_a_row,
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
    same scene. Of clothes: the same figure in other clothes; other figures in the same clothes. Of instruct: the same
    object with other adjectives; other objects with the same adjective. Of several objects: the first with others;
    others with the last.
    """
    rng = random.Random(f"distractors {t.operator} {seed}")
    truth = t.result
    thing = truth.objects[0]
    free = [c for c in names.categories if c not in {o.category for o in truth.objects}]
    others = rng.sample(free, each)

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
    elif t.operator in several.COUNTS:
        count, last = len(truth.objects), truth.objects[-1]
        strangers = [[stranger(c) for c in rng.sample(free, count - 1)] for _ in range(each)]
        same_first = [replace(truth, objects=in_a_row(thing, *s)) for s in strangers]
        same_second = [replace(truth, objects=in_a_row(*s, last)) for s in strangers]
    elif t.operator == "clothes":
        same_first, same_second = _other_clothes(t, rng, each)
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


def _other_clothes(t: Triplet, rng: random.Random, each: int) -> tuple[list[SceneSpec], list[SceneSpec]]:
    bare = replace(t.result, objects=t.result.objects[:1])
    garments = [o for scene in t.operands if isinstance(scene, SceneSpec) for o in scene.objects][1:]
    kinds = sorted(o.category for o in garments)
    same_figure: list[SceneSpec] = []
    while len(same_figure) < each:
        _, other = clothes.outfit(str(rng.random()), rng.random() < 0.5)
        if sorted(o.category for o in other.objects[1:]) != kinds:
            alone = [replace(o, fit=None) for o in other.objects[1:]]
            same_figure.append(clothes.dressed(bare, alone))
    known = [name for name in clothes.FIGURES if name != bare.objects[0].category]
    same_clothes = []
    for name in rng.choices(known, k=each):
        who = sample_object(rng, name, plain_material(name, rng))
        pose = replace(who, yaw=bare.objects[0].yaw, scale=bare.objects[0].scale)
        same_clothes.append(clothes.dressed(replace(bare, objects=(pose,)), garments))
    return same_figure, same_clothes


def _with(scene: SceneSpec, thing: ObjectSpec) -> SceneSpec:
    return replace(scene, objects=(thing,))
