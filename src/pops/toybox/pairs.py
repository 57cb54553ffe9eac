"""The exact answer of every operator: families of images that share geometry, and the triplets in them.

A family is drawn from one seed: one object and what each of the four operators makes of it. Training families show no
held-out combination (world.held_out); test families come from other seeds, and the combination in focus is held out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pops.toybox import clothes, several
from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.draw import draw_swatch, light, object_paints, paint, setting_of
from pops.toybox.shot import Device, Shot, shoot
from pops.toybox.world import (
    CORE,
    Camera,
    MaterialSpec,
    ObjectSpec,
    SceneSpec,
    SwatchSpec,
    Vocabulary,
    held_out,
    named_material,
    plain_material,
    random_material_spec,
    sample_camera,
    sample_object,
    sample_setting,
    sample_swatch,
    side_by_side,
)

OPERATORS = ("texturing", "union", "scene", "instruct")
TEST_SEEDS = 2**40  # test families are drawn from seeds above this, training families from seeds below

Picture = SceneSpec | SwatchSpec


@dataclass(frozen=True)
class Triplet:
    """Operands and true result of one operator; an operand is an image's spec or a word."""

    operator: str
    operands: tuple[Picture | str, ...]
    result: SceneSpec


@dataclass(frozen=True)
class Family:
    """Images about one object; the four operators' triplets are among them."""

    base: SceneSpec  # the object, first material, in the scene
    textured: SceneSpec  # the same, second material
    swatch: SwatchSpec  # the second material
    studio: SceneSpec  # the object, first material, in the studio
    elsewhere: SceneSpec  # the same in yet another scene
    empty: SceneSpec  # the scene without the object, another viewpoint
    edited: SceneSpec  # base, with an adjective
    other: SceneSpec  # a second object alone in a studio
    both: SceneSpec  # both objects side by side, in the first one's studio

    def pictures(self) -> dict[str, Picture]:
        return {name: getattr(self, name) for name in PICTURES}

    def triplets(self) -> list[Triplet]:
        word = self.edited.objects[0].adjectives[0]
        return [
            Triplet("texturing", (self.base, self.swatch), self.textured),
            Triplet("union", (self.studio, self.other), self.both),
            Triplet("scene", (self.studio, self.empty), self.base),
            Triplet("scene", (self.elsewhere, self.empty), self.base),
            Triplet("instruct", (self.base, word), self.edited),
        ]


PICTURES = ("base", "textured", "swatch", "studio", "elsewhere", "empty", "edited", "other", "both")


def _choose(options: Iterable[str], rng: random.Random, allowed: Callable[[str], bool]) -> str:
    names = [o for o in options if allowed(o)]
    return rng.choice(names)


def _first_material(
    category: str, materials: Iterable[str], rng: random.Random, allowed: Callable[[str], bool]
) -> MaterialSpec:
    lot = rng.random()
    if lot < 0.40:
        return plain_material(category, rng)
    if lot < 0.80:
        return named_material(_choose(materials, rng, allowed), rng)
    return random_material_spec(rng)


def family(seed: int, split: str = "train", focus: str | None = None, names: Vocabulary = CORE) -> Family:
    """Draws the family of a seed.

    split: "train" shows nothing held out; "test" with a focus (an operator's name) makes the combination of that
    operator a held-out one.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    rng = random.Random(seed + (TEST_SEEDS if split == "test" else 0))
    forced = _forced(focus, rng, names) if split == "test" and focus else {}
    category = forced.get("category") or rng.choice(names.categories)

    def ok(kind: str) -> Callable[[str], bool]:
        return lambda name: split == "test" or not held_out(kind, category, name)

    first = _first_material(category, names.materials, rng, ok("material"))
    second_name = forced.get("material") or (
        _choose(names.materials, rng, ok("material")) if rng.random() < 0.6 or split == "test" else None
    )
    second = named_material(second_name, rng) if second_name else random_material_spec(rng)
    scene = forced.get("scene") or (
        "studio" if rng.random() < 0.22 else _choose((s for s in names.scenes if s != "studio"), rng, ok("scene"))
    )
    third = _choose((s for s in names.scenes if s not in ("studio", scene)), rng, ok("scene"))
    adjective = forced.get("adjective") or _choose(names.adjectives, rng, ok("adjective"))
    partner = forced.get("object") or _choose(names.categories, rng, lambda n: n != category and ok("object")(n))

    thing = sample_object(rng, category, first)
    camera = sample_camera(rng)
    _, setting = sample_setting(rng, scene)
    _, studio = sample_setting(rng, "studio")
    _, studio_b = sample_setting(rng, "studio")
    _, faraway = sample_setting(rng, third)
    away = _away(camera, rng)
    partner_material = _first_material(
        partner, names.materials, rng, lambda m: split == "test" or not held_out("material", partner, m)
    )
    second_thing = sample_object(rng, partner, partner_material)
    base = SceneSpec((thing,), scene, setting, camera)
    alone = SceneSpec((thing,), "studio", studio, camera)
    return Family(
        base=base,
        textured=replace(base, objects=(replace(thing, material=second),)),
        swatch=sample_swatch(second, rng),
        studio=alone,
        elsewhere=SceneSpec((thing,), third, faraway, camera),
        empty=SceneSpec((), scene, setting, away),
        edited=replace(base, objects=(replace(thing, adjectives=(adjective,)),)),
        other=SceneSpec((second_thing,), "studio", studio_b, sample_camera(rng)),
        both=replace(alone, objects=side_by_side(thing, second_thing)),
    )


def _away(camera: Camera, rng: random.Random) -> Camera:
    """Draws another crop and viewpoint of the same place."""
    return Camera(
        azimuth=camera.azimuth + rng.uniform(-6, 6),
        height=rng.uniform(1.6, 2.3),
        distance=rng.uniform(4.6, 5.8),
        fov=rng.uniform(25, 33),
        aim=rng.uniform(0.75, 0.95),
    )


def _forced(focus: str, rng: random.Random, names: Vocabulary) -> dict[str, str]:
    """Draws a held-out combination of the operator in focus, uniformly."""
    kind, options = {
        "texturing": ("material", names.materials),
        "union": ("object", names.categories),
        "scene": ("scene", tuple(s for s in names.scenes if s != "studio")),
        "instruct": ("adjective", names.adjectives),
    }[focus]
    pairs = [(c, o) for c in names.categories for o in options if c != o and held_out(kind, c, o)]
    category, other = rng.choice(pairs)
    return {"category": category, kind: other}


def triplet(operator: str, seed: int, split: str = "test") -> Triplet:
    """Draws an exact triplet of an operator; in the test split, its combination is held out.

    Beside OPERATORS there are clothes, of a figure and up to six garments, and union_3 and union_4, of so many objects.
    """
    if operator in several.COUNTS:
        drawn = several.company_of(several.COUNTS[operator], f"{operator} {split} {seed}", split == "test")
        return Triplet(operator, *drawn)
    if operator == "clothes":
        return Triplet(operator, *clothes.outfit(f"clothes {split} {seed}", split == "test"))
    found = [t for t in family(seed, split, operator).triplets() if t.operator == operator]
    return found[0]


def draw_family(
    f: Family, size: int = 96, samples: int = 2, device: Device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Shot]]:
    """Draws all images of a family, uint8 [3, size, size] by name, and returns the shot of each but the swatch.

    The same as drawing each alone, at about half the cost: images of one geometry share it.
    """
    pictures = f.pictures()
    scenes = {name: spec for name, spec in pictures.items() if isinstance(spec, SceneSpec)}
    drawn, shots = draw_alike(list(scenes.values()), size, samples, device)
    found = dict(zip(scenes, drawn, strict=True))
    for name, spec in pictures.items():
        if isinstance(spec, SwatchSpec):
            found[name] = draw_swatch(spec, size, samples, device)
    return {name: found[name] for name in pictures}, dict(zip(scenes, shots, strict=True))


def draw_alike(
    specs: list[SceneSpec], size: int = 96, samples: int = 2, device: Device = "cpu"
) -> tuple[list[Tensor], list[Shot]]:
    """Draws images uint8 [3, size, size] and returns the shot of each.

    Each geometry is traced once, and lit once per scene.
    """
    shots: dict[tuple[tuple[ObjectSpec, ...], Camera], Shot] = {}
    lits: dict[tuple[int, str, object], object] = {}
    pictures, behind = [], []
    for spec in specs:
        bare = tuple(_geometry(o) for o in spec.objects)
        shot = shots.get((bare, spec.camera))
        if shot is None:
            shot = shots[(bare, spec.camera)] = shoot(spec.objects, spec.camera, size, samples, device)
        key = (id(shot), spec.scene, spec.setting)
        lit = lits.get(key)
        if lit is None:
            lit = lits[key] = light(shot, setting_of(spec.scene, spec.setting))
        pictures.append(paint(lit, [object_paints(o) for o in spec.objects]))  # type: ignore[arg-type]
        behind.append(shot)
    return pictures, behind


def _geometry(o: ObjectSpec) -> ObjectSpec:
    """Returns the object without what does not change its shape."""
    shapes = tuple(a for a in o.adjectives if ADJECTIVES[a].warp is not None)
    return replace(o, material=MaterialSpec("plain"), adjectives=shapes)


@torch.no_grad()
def draw_triplet(t: Triplet, size: int = 96) -> tuple[list[Tensor | str], Tensor]:
    """Draws the operands (words stay words) and the true result, uint8 [3, size, size]."""
    from pops.toybox.draw import draw

    return [o if isinstance(o, str) else draw(o, size) for o in t.operands], draw(t.result, size)


@dataclass(frozen=True)
class Grid:
    """One object in several materials and scenes: many triplets of texturing, scene and instruct, traced once.

    cells[s][m] is the object of material m in scene s.
    """

    cells: tuple[tuple[SceneSpec, ...], ...]
    swatches: tuple[SwatchSpec, ...]
    empties: tuple[SceneSpec, ...]
    edited: tuple[SceneSpec, ...]  # cells[s][0] for each s, each with another adjective of look

    def pictures(self) -> list[Picture]:
        return [*(c for row in self.cells for c in row), *self.swatches, *self.empties, *self.edited]


GRID = 4  # materials and scenes of a grid
GRID_PICTURES = GRID * GRID + 3 * GRID


def grid(seed: int, names: Vocabulary = CORE) -> Grid:
    """Draws the grid of a seed; for training only: it shows nothing held out."""
    rng = random.Random(f"grid {seed}")
    category = rng.choice(names.categories)

    def free(kind: str, options: Iterable[str], count: int) -> list[str]:
        return rng.sample([o for o in options if not held_out(kind, category, o)], count)

    thing = sample_object(rng, category)
    camera = sample_camera(rng)
    materials = [named_material(m, rng) for m in free("material", names.materials, GRID - 1)]
    materials.append(random_material_spec(rng))
    rng.shuffle(materials)
    if rng.random() < 0.5:
        materials[0] = plain_material(category, rng)
    scenes = ["studio", *free("scene", (s for s in names.scenes if s != "studio"), GRID - 1)]
    settings = [sample_setting(rng, s) for s in scenes]
    looks = [a for a in names.adjectives if ADJECTIVES[a].warp is None]
    adjectives = free("adjective", looks, GRID)
    cells = tuple(tuple(SceneSpec((replace(thing, material=m),), s, p, camera) for m in materials) for s, p in settings)
    return Grid(
        cells,
        tuple(sample_swatch(m, rng) for m in materials),
        tuple(SceneSpec((), s, p, _away(camera, rng)) for s, p in settings),
        tuple(
            replace(row[0], objects=(replace(row[0].objects[0], adjectives=(a,)),))
            for row, a in zip(cells, adjectives, strict=True)
        ),
    )


def draw_grid(
    g: Grid, size: int = 96, samples: int = 2, device: Device = "cpu"
) -> tuple[list[Tensor], list[Shot | None]]:
    """Draws all images of a grid in the order of `pictures()`, and returns the shot of each (None for swatches)."""
    first = g.cells[0][0]
    shot = shoot(first.objects, first.camera, size, samples, device)
    lit = [light(shot, setting_of(row[0].scene, row[0].setting)) for row in g.cells]

    def painted(spec: SceneSpec, s: int) -> Tensor:
        return paint(lit[s], [object_paints(o) for o in spec.objects])

    cells = [painted(spec, s) for s, row in enumerate(g.cells) for spec in row]
    swatches = [draw_swatch(w, size, samples, device) for w in g.swatches]
    bare = [shoot((), e.camera, size, samples, device) for e in g.empties]
    empties = [paint(light(b, setting_of(e.scene, e.setting)), []) for b, e in zip(bare, g.empties, strict=True)]
    edited = [painted(spec, s) for s, spec in enumerate(g.edited)]
    shots: list[Shot | None] = [*[shot] * len(cells), *[None] * len(swatches), *bare, *[shot] * len(edited)]
    return [*cells, *swatches, *empties, *edited], shots


@dataclass(frozen=True)
class Change:
    """One object in one scene, and what several adjectives make of it: triplets of instruct for training."""

    base: SceneSpec
    edited: tuple[SceneSpec, ...]  # base, each with another adjective

    def pictures(self) -> list[SceneSpec]:
        return [self.base, *self.edited]


CHANGES = 6  # adjectives of a change
CHANGE_PICTURES = 1 + CHANGES


def change(seed: int, names: Vocabulary = CORE) -> Change:
    """Draws the change of a seed; for training only: it shows nothing held out."""
    rng = random.Random(f"change {seed}")
    category = rng.choice(names.categories)

    def free(kind: str, options: Iterable[str]) -> list[str]:
        return [o for o in options if not held_out(kind, category, o)]

    thing = sample_object(
        rng, category, _first_material(category, free("material", names.materials), rng, lambda _: True)
    )
    others = free("scene", (s for s in names.scenes if s != "studio"))
    scene, setting = sample_setting(rng, "studio" if rng.random() < 0.22 else rng.choice(others))
    base = SceneSpec((thing,), scene, setting, sample_camera(rng))
    adjectives = rng.sample(free("adjective", names.adjectives), CHANGES)
    return Change(base, tuple(replace(base, objects=(replace(thing, adjectives=(a,)),)) for a in adjectives))


@dataclass(frozen=True)
class Company:
    """A few objects alone, each in its own studio, and every ordered pair of them side by side: unions for training."""

    alone: tuple[SceneSpec, ...]
    pairs: tuple[tuple[int, int], ...]  # indices into `alone`: left, right

    def together(self, i: int, j: int) -> SceneSpec:
        """Returns the true union of i and j: in the studio and with the camera of i."""
        a, b = self.alone[i], self.alone[j]
        return replace(a, objects=side_by_side(a.objects[0], b.objects[0]))

    def pictures(self) -> list[SceneSpec]:
        return [*self.alone, *(self.together(i, j) for i, j in self.pairs)]


COMPANY = 5  # objects of a company


def company(seed: int, names: Vocabulary = CORE) -> Company:
    """Draws the company of a seed; for training only: it shows nothing held out."""
    rng = random.Random(f"company {seed}")
    alone: list[SceneSpec] = []
    for category in rng.sample(names.categories, COMPANY):
        allowed = [m for m in names.materials if not held_out("material", category, m)]
        thing = sample_object(rng, category, _first_material(category, allowed, rng, lambda _: True))
        alone.append(SceneSpec((thing,), *sample_setting(rng, "studio"), sample_camera(rng)))
    kinds = [s.objects[0].category for s in alone]
    pairs = [(i, j) for i in range(COMPANY) for j in range(COMPANY) if i != j]
    return Company(tuple(alone), tuple((i, j) for i, j in pairs if not held_out("object", kinds[i], kinds[j])))
