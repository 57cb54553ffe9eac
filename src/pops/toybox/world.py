"""What an image of toybox shows, as a value: specs, their JSON, and how specs are drawn at random from a seed.

A spec names everything that an image depends on, so that the same spec gives the same image. This module knows the
names of categories, materials, scenes and adjectives and their parameter ranges; it does not know how to render them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from itertools import combinations
from typing import Any

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES, EVERY
from pops.toybox.scenes import SCENES

Params = tuple[tuple[str, float], ...]  # instance parameters, by name, in the order of the category's ranges

HELD_OUT_SHARE = 10  # one combination in this many is never shown in training
# Of clothes, what is never worn together, or never by this figure, in training: so few that figures wear all else.
NEVER_WORN = frozenset(
    [("bag", "bow tie"), ("bow tie", "glasses"), ("bow tie", "hat"), ("mittens", "robot"), ("glasses", "snowman")]
)


@dataclass(frozen=True)
class Vocabulary:
    """The names that images are drawn from: all of the world, or what a small model has time to learn."""

    categories: tuple[str, ...]
    materials: tuple[str, ...]
    scenes: tuple[str, ...]
    adjectives: tuple[str, ...]

    def __post_init__(self) -> None:
        tables = (set(CATEGORIES), set(MATERIALS), set(SCENES), set(ADJECTIVES))
        for names, table in zip(astuple(self), tables, strict=True):
            unknown = sorted(set(names) - table)
            if unknown:
                raise ValueError(f"unknown in toybox: {', '.join(unknown)}")


WHOLE = Vocabulary(tuple(CATEGORIES), tuple(MATERIALS), tuple(SCENES), tuple(ADJECTIVES))
CORE = Vocabulary(
    (
        "dog",
        "rabbit",
        "cat",
        "duck",
        "elephant",
        "fish",
        "teapot",
        "mug",
        "vase",
        "lamp",
        "car",
        "rocket",
        "robot",
        "coffee machine",
        "house",
        "castle",
        "tree",
        "cactus",
        "mushroom",
        "pumpkin",
        "chair",
        "donut",
        "hat",
        "guitar",
    ),
    (
        "gold",
        "copper",
        "brick",
        "knit",
        "denim",
        "polka dots",
        "plaid",
        "honeycomb",
        "porcelain",
        "candy stripes",
        "tiger",
        "zebra",
        "leopard",
        "giraffe",
        "marble",
        "jade",
        "lava",
        "ice",
        "moss",
        "wood",
        "watermelon",
        "galaxy",
    ),
    (
        "studio",
        "kitchen",
        "night city",
        "desert",
        "beach",
        "snow",
        "forest",
        "meadow",
        "volcano",
        "underwater",
        "space",
        "sunset mountains",
    ),
    (
        "tiny",
        "enormous",
        "tall",
        "flat",
        "twisted",
        "spiky",
        "melting",
        "blocky",
        "golden",
        "wooden",
        "frozen",
        "burning",
        "mossy",
        "snowy",
        "striped",
        "spotted",
        "rainbow",
        "cracked",
    ),
)


@dataclass(frozen=True)
class MaterialSpec:
    """What the body of an object is made of."""

    kind: str  # "named" | "random" | "plain" | "photo"
    name: str = ""  # named: the material; photo: the path of the image
    params: Params = ()  # named: instance parameters
    seed: int = 0  # random: which member of the family
    rgb: tuple[float, float, float] = (0.8, 0.8, 0.8)  # plain: sRGB, 0..1
    scale: float = 1.0  # photo: object units that the image's side covers


@dataclass(frozen=True)
class ObjectSpec:
    """One object: category, shape, material, adjectives, and where it stands."""

    category: str
    shape: Params
    material: MaterialSpec
    adjectives: tuple[str, ...] = ()
    yaw: float = 0.0  # degrees, counter-clockwise seen from above
    x: float = 0.0  # world units along the image's horizontal
    scale: float = 1.0
    fit: tuple[float, float, float, float] | None = None  # worn: its size and place in the wearer's own space


@dataclass(frozen=True)
class Camera:
    """Where the image is taken from. Angles in degrees, lengths in world units."""

    azimuth: float = 0.0
    height: float = 1.9
    distance: float = 5.2
    fov: float = 27.0  # vertical
    aim: float = 0.82  # height of the point looked at


@dataclass(frozen=True)
class SceneSpec:
    """One image: objects (none, one, a few side by side, a figure and what it wears) in a scene, and a camera."""

    objects: tuple[ObjectSpec, ...]
    scene: str
    setting: Params
    camera: Camera = field(default_factory=Camera)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SceneSpec:
        return scene_from_dict(json.loads(text))


@dataclass(frozen=True)
class SwatchSpec:
    """A flat, lit exemplar of a material: a square cut from the solid texture."""

    material: MaterialSpec
    depth: float = 0.0  # where the plane cuts the solid, object units
    span: float = 1.7  # object units that the image's side covers

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> SwatchSpec:
        data = json.loads(text)
        return SwatchSpec(_material_from(data["material"]), data["depth"], data["span"])


def _params_from(rows: Sequence[Sequence[Any]]) -> Params:
    return tuple((str(name), float(value)) for name, value in rows)


def _material_from(data: Mapping[str, Any]) -> MaterialSpec:
    return MaterialSpec(**{**data, "params": _params_from(data["params"]), "rgb": tuple(data["rgb"])})


def scene_from_dict(data: Mapping[str, Any]) -> SceneSpec:
    """Makes a spec from the dict of `dataclasses.asdict`, or from its JSON form."""
    objects = tuple(
        ObjectSpec(
            **{
                **o,
                "shape": _params_from(o["shape"]),
                "material": _material_from(o["material"]),
                "adjectives": tuple(o["adjectives"]),
                "fit": tuple(o["fit"]) if o.get("fit") else None,
            }
        )
        for o in data["objects"]
    )
    return SceneSpec(objects, data["scene"], _params_from(data["setting"]), Camera(**data["camera"]))


# --- splits, by construction -----------------------------------------------------------------------------------------


def held_out(kind: str, a: str, b: str) -> bool:
    """Returns whether the combination of two names is held out of all training. Symmetric for "object"; never changes.

    kind: "material" (object x material), "object" (object x object), "scene" (object x scene), "adjective",
    "worn" (garment x garment, and figure x garment; of NEVER_WORN).
    """
    if kind == "worn":
        return (min(a, b), max(a, b)) in NEVER_WORN
    if kind == "object":
        a, b = sorted((a, b))
    digest = hashlib.sha256(f"{kind}|{a}|{b}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def held_out_of(spec: SceneSpec) -> list[str]:
    """Returns the held-out combinations in an image, as readable names; none in images that training may see."""
    found = []
    for o in spec.objects:
        if o.material.kind == "named" and held_out("material", o.category, o.material.name):
            found.append(f"{o.category} x {o.material.name}")
        if spec.scene != "studio" and held_out("scene", o.category, spec.scene):
            found.append(f"{o.category} x {spec.scene}")
        found += [f"{o.category} x {a}" for a in o.adjectives if held_out("adjective", o.category, a)]
    kind = "worn" if any(o.fit for o in spec.objects) else "object"
    pairs = combinations(sorted(o.category for o in spec.objects), 2)
    found += [f"{a} x {b}" for a, b in pairs if held_out(kind, a, b)]
    return found


# --- drawing specs at random -----------------------------------------------------------------------------------------


def sample_params(ranges: Mapping[str, tuple[float, float]], rng: random.Random) -> Params:
    return tuple((name, rng.uniform(low, high)) for name, (low, high) in ranges.items())


def named_material(name: str, rng: random.Random) -> MaterialSpec:
    return MaterialSpec("named", name, params=sample_params(MATERIALS[name].ranges, rng))


def plain_material(category: str, rng: random.Random) -> MaterialSpec:
    """Draws one of the category's natural colours, slightly varied."""
    base = rng.choice(EVERY[category].natural)
    shade = rng.uniform(0.92, 1.06)
    return MaterialSpec("plain", rgb=_clipped(c * shade + rng.uniform(-0.02, 0.02) for c in base))


def random_material_spec(rng: random.Random) -> MaterialSpec:
    return MaterialSpec("random", seed=rng.randrange(2**31))


def _clipped(rgb: Any) -> tuple[float, float, float]:
    r, g, b = (min(1.0, max(0.0, c)) for c in rgb)
    return r, g, b


def sample_object(
    rng: random.Random, category: str | None = None, material: MaterialSpec | str | None = None
) -> ObjectSpec:
    """Draws an object of a category (None: any) and of a named material (None: plain)."""
    name = category or rng.choice(list(CATEGORIES))
    kind = EVERY[name]
    shape = sample_params(kind.ranges, rng)
    yaw = rng.uniform(*kind.yaw)
    if material is None:
        material = plain_material(name, rng)
    elif isinstance(material, str):
        material = named_material(material, rng)
    return ObjectSpec(name, shape, material, yaw=yaw)


def sample_setting(rng: random.Random, scene: str | None = None) -> tuple[str, Params]:
    name = scene or rng.choice(list(SCENES))
    return name, sample_params(SCENES[name].ranges, rng)


def sample_camera(rng: random.Random) -> Camera:
    return Camera(azimuth=rng.uniform(-4, 4), height=rng.uniform(1.7, 2.2), aim=rng.uniform(0.80, 0.86))


def sample_swatch(material: MaterialSpec, rng: random.Random) -> SwatchSpec:
    return SwatchSpec(material, depth=rng.uniform(-0.4, 0.4), span=rng.uniform(1.45, 1.9))


def sample_scene(seed: int, scene: str | None = None) -> SceneSpec:
    """Draws any one-object image of the world from a seed, including held-out combinations."""
    rng = random.Random(seed)
    material = rng.choice([None, *MATERIALS, *MATERIALS])
    thing = sample_object(rng, material=material)
    if rng.random() < 0.15:
        thing = replace(thing, adjectives=(rng.choice(list(ADJECTIVES)),))
    name, setting = sample_setting(rng, scene)
    return SceneSpec((thing,), name, setting, sample_camera(rng))


def sample_swatch_seeded(material: str, seed: int) -> SwatchSpec:
    """Draws an exemplar of a named material from a seed."""
    rng = random.Random(seed)
    return sample_swatch(named_material(material, rng), rng)


SIDE_X, SIDE_SCALE = 0.62, 0.63  # two objects side by side: distance of each from the middle, and size


def side_by_side(a: ObjectSpec, b: ObjectSpec) -> tuple[ObjectSpec, ObjectSpec]:
    """Returns the true union of two objects: a on the left, b on the right, both smaller, otherwise unchanged."""
    return replace(a, x=-SIDE_X, scale=SIDE_SCALE), replace(b, x=SIDE_X, scale=SIDE_SCALE)


ROWS = {1: (0.0, 1.0), 2: (SIDE_X, SIDE_SCALE), 3: (0.83, 0.43), 4: (0.93, 0.33)}  # place of the outer ones, and size


def in_a_row(*objects: ObjectSpec) -> tuple[ObjectSpec, ...]:
    """Returns the true union of one to four objects, from the left to the right; of two it is `side_by_side`."""
    reach, scale = ROWS[len(objects)]
    step = 2 * reach / max(1, len(objects) - 1)
    return tuple(replace(o, x=k * step - reach, scale=scale) for k, o in enumerate(objects))
