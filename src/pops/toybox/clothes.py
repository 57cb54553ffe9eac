"""Figures that wear things: the exact answer of the operator clothes.

A garment that is worn is the same object as alone, of the same shape and material: its `fit` says how large it is and
where on the figure. An example's operands are the figure without them, and each garment alone, all in the studio.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from pops.toybox.world import (
    CORE,
    MaterialSpec,
    ObjectSpec,
    SceneSpec,
    Vocabulary,
    held_out,
    named_material,
    plain_material,
    sample_camera,
    sample_object,
    sample_setting,
)

SIZE = 0.82  # of a figure: leaves room for a hat above it
YAW = 28.0  # degrees: figures turn no further, so that all they wear is seen


@dataclass(frozen=True)
class Body:
    """Where a figure wears things, in its own space: heights, radii, distances from the middle (x) and forward (z)."""

    top: float  # of the head
    head: float  # radius of the head
    eyes: tuple[float, float, float]  # x of one eye, y, z
    neck: tuple[float, float]  # y, radius
    collar: tuple[float, float]  # y, z: the front below the neck
    foot: tuple[float, float, float]  # x, z, size
    hand: tuple[float, float, float]  # x, y, z of the right one


def _robot(s: Mapping[str, float]) -> Body:
    fat, head, lift = s["fat"], s["head"], s["arms"]
    hand = (0.68 * fat, 0.50 + lift, 0.17)
    eyes = (0.155 * head, 1.40, 0.28 * head + 0.07)
    return Body(1.55, 0.36 * head, eyes, (1.05, 0.38), (0.98, 0.36), (0.22 * fat, 0.02, 0.60), hand)


def _bear(s: Mapping[str, float]) -> Body:
    fat, big = s["fat"], 0.40 * s["head"]
    eyes = (0.165, 1.38, 0.06 + big * 0.88)
    hand = (0.64, 0.46, 0.22)
    return Body(1.27 + big, big * 0.85, eyes, (0.96, 0.36 * fat), (0.86, 0.42), (0.48, 0.62, 0.62), hand)


def _snowman(s: Mapping[str, float]) -> Body:
    fat, head, lift = 0.54 * s["fat"], 0.30 * s["head"], s["arms"]
    eyes = (0.11, 1.62, head * 0.88 + 0.03)
    hand = (0.82, 1.22 + lift, 0.1)
    return Body(1.50 + head, head * 0.95, eyes, (1.29, 0.30), (1.20, 0.40), (0.26, fat * 0.75, 0.5), hand)


FIGURES: dict[str, Callable[[Mapping[str, float]], Body]] = {"robot": _robot, "bear": _bear, "snowman": _snowman}


# --- garments: each returns its gap (of a pair; else None) and its fit (size, x, y, z) -------------------------------

Fit = tuple[float, float, float, float]


def _hat(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    return None, (b.head / 0.72, 0.0, b.top - 0.03, 0.0)


def _crown(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    return None, (b.head / 0.78, 0.0, b.top - 0.04, 0.0)


def _cap(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    return None, (b.head / 0.60, 0.0, b.top - 0.20, 0.0)


def _glasses(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    x, y, z = b.eyes
    size = max(x, 0.15) / 0.42
    return None, (size, 0.0, y - 0.45 * size, z)


def _scarf(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    y, radius = b.neck
    size = (radius + 0.06) / 0.66
    return None, (size, 0.0, y - 1.05 * size, 0.0)


def _bow_tie(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    y, z = b.collar
    return None, (0.32, 0.0, y - 0.58 * 0.32, z)


def _boots(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    x, z, size = b.foot
    return x / size, (size, 0.0, 0.0, z)


def _mittens(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    x, y, z = b.hand
    return x / 0.72, (0.72, 0.0, y - 0.40 * 0.72, z)


def _bag(b: Body, s: Mapping[str, float]) -> tuple[float | None, Fit]:
    x, y, z = b.hand
    high = (2 * 0.42 * s["high"] + 0.32) * 0.46  # from the bag's base to the hand in its handle
    return None, (0.46, x, max(0.0, y - high), z + 0.10)


@dataclass(frozen=True)
class Garment:
    """Something to wear. place: of what a figure wears at one place there is one at most; alone: its size alone."""

    place: str
    fit: Callable[[Body, Mapping[str, float]], tuple[float | None, Fit]]
    alone: float = 1.0


WARDROBE: dict[str, Garment] = {
    "hat": Garment("head", _hat),
    "crown": Garment("head", _crown),
    "cap": Garment("head", _cap, 1.25),
    "glasses": Garment("eyes", _glasses, 1.4),
    "scarf": Garment("neck", _scarf, 1.15),
    "bow tie": Garment("neck", _bow_tie, 1.2),
    "boots": Garment("feet", _boots, 1.4),
    "mittens": Garment("hands", _mittens, 1.7),
    "bag": Garment("arm", _bag, 1.2),
}
PLACES = tuple(dict.fromkeys(garment.place for garment in WARDROBE.values()))
MOST = len(PLACES)  # garments of one figure


def wear(figure: ObjectSpec, garment: ObjectSpec) -> ObjectSpec:
    """Returns the garment as the figure wears it: its shape and material, the figure's pose."""
    shape = dict(garment.shape)
    gap, fit = WARDROBE[garment.category].fit(FIGURES[figure.category](dict(figure.shape)), shape)
    if gap is not None:
        shape["gap"] = gap
    pose = {"yaw": figure.yaw, "x": figure.x, "scale": figure.scale, "fit": fit}
    return replace(garment, shape=tuple(shape.items()), **pose)  # type: ignore[arg-type]


def dressed(figure: SceneSpec, garments: Sequence[ObjectSpec]) -> SceneSpec:
    """Returns the true result: the figure of a scene, there, wearing garments."""
    who = figure.objects[0]
    return replace(figure, objects=(who, *(wear(who, garment) for garment in garments)))


def alone(rng: random.Random, garment: ObjectSpec) -> SceneSpec:
    """Draws a picture of a garment alone in the studio."""
    large = replace(garment, scale=WARDROBE[garment.category].alone)
    return SceneSpec((large,), *sample_setting(rng, "studio"), sample_camera(rng))


# --- examples --------------------------------------------------------------------------------------------------------


def kept_apart(figure: str, garments: Sequence[str]) -> bool:
    """Returns whether a figure and what it wears are held out: two garments, or the figure and one, never together."""
    return any(held_out("worn", a, b) for a, b in combinations((figure, *garments), 2))


def outfit(seed: str, test: bool, names: Vocabulary = CORE) -> tuple[tuple[SceneSpec, ...], SceneSpec]:
    """Draws an example: the operands, the figure first and then each garment in random order, and the true result.

    test: the combination is held out; else it is not.
    """
    rng = random.Random(seed)
    count = rng.randint(1, MOST)
    while True:
        figure = rng.choice(list(FIGURES))
        places = rng.sample(PLACES, count)
        kinds = [rng.choice([n for n, g in WARDROBE.items() if g.place == place]) for place in places]
        if kept_apart(figure, kinds) == test:
            break
    who = sample_object(rng, figure, _material(figure, rng, names, 0.3))
    who = replace(who, yaw=rng.uniform(-YAW, YAW), scale=SIZE)
    garments = [sample_object(rng, kind, _material(kind, rng, names, 0.5)) for kind in kinds]
    bare = SceneSpec((who,), *sample_setting(rng, "studio"), sample_camera(rng))
    return (bare, *(alone(rng, garment) for garment in garments)), dressed(bare, garments)


def repainted(
    rng: random.Random, operands: Sequence[SceneSpec], result: SceneSpec, names: Vocabulary = CORE
) -> tuple[tuple[SceneSpec, ...], SceneSpec]:
    """Draws the same example in other materials: of the same shapes and places, so that it costs little to render."""
    kinds = [operand.objects[0].category for operand in operands]
    of = [_material(kind, rng, names, 0.5 if k else 0.3) for k, kind in enumerate(kinds)]

    def painted(scene: SceneSpec, materials: Sequence[MaterialSpec]) -> SceneSpec:
        return replace(scene, objects=tuple(replace(o, material=m) for o, m in zip(scene.objects, materials)))

    return tuple(painted(scene, [m]) for scene, m in zip(operands, of)), painted(result, of)


def _material(category: str, rng: random.Random, names: Vocabulary, share: float) -> MaterialSpec:
    """Draws a material: of so large a share a named one that training may see on this category."""
    if rng.random() >= share:
        return plain_material(category, rng)
    return named_material(rng.choice([m for m in names.materials if not held_out("material", category, m)]), rng)
