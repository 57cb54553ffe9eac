"""Captions: describes a spec in several phrasings, and parses a caption to a spec."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterable
from dataclasses import replace

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.scenes import SCENES
from pops.toybox.world import (
    MaterialSpec,
    ObjectSpec,
    SceneSpec,
    SwatchSpec,
    sample_camera,
    sample_object,
    sample_setting,
    side_by_side,
)


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def material_word(material: MaterialSpec) -> str:
    """Returns the material's name, "" for those without a name."""
    return material.name if material.kind == "named" else ""


def noun_phrase(o: ObjectSpec, with_material: bool = True) -> str:
    words = [*o.adjectives, material_word(o.material) if with_material else "", o.category]
    return article(" ".join(w for w in words if w))


def captions(spec: SceneSpec | SwatchSpec) -> list[str]:
    """Returns true captions of an image, the most detailed first."""
    if isinstance(spec, SwatchSpec):
        name = material_word(spec.material) or "patterned"
        return [f"{name} texture", f"a close-up of {name}", f"a {name} surface"]
    place = SCENES[spec.scene].phrase
    if not spec.objects:
        return [f"an empty scene {place}", f"the {spec.scene}", f"nothing {place}"]
    full = " and ".join(noun_phrase(o) for o in spec.objects)
    bare = " and ".join(article(o.category) for o in spec.objects)
    rows = [f"{full} {place}", f"a photo of {full} {place}", full, f"a photo of {bare} {place}", bare]
    if len(spec.objects) == 1:
        o = spec.objects[0]
        name = material_word(o.material)
        if name and not o.adjectives:
            rows += [f"{article(o.category)} made of {name} {place}", f"{article(o.category)} made of {name}"]
        if o.adjectives:
            rows.append(noun_phrase(o, with_material=False))
    return rows


def sample_caption(spec: SceneSpec | SwatchSpec, rng: random.Random) -> str:
    return rng.choice(captions(spec))


class CaptionError(ValueError):
    """A caption with words that toybox does not know; the message says what to write instead."""


_ALIASES = {
    "desk lamp": "lamp",
    "top hat": "hat",
    "teddy bear": "bear",
    "teddy": "bear",
    "coffee maker": "coffee machine",
}
_SCENE_ALIASES = {"city": "night city", "mountains": "sunset mountains", "sea": "underwater", "moon": "space"}


def parse_caption(text: str, seed: int = 0) -> SceneSpec:
    """Parses a caption like "a tiger teapot on a beach"; what it leaves open is drawn from the seed.

    Raises CaptionError for a caption without an object of toybox, or with an unknown word.
    """
    rng = random.Random(seed)
    rest = re.sub(r"[^a-z ]+", " ", text.lower())
    phrases_of = {scene.phrase: name for name, scene in SCENES.items()}
    rest, place = _take(rest, {**{s: s for s in SCENES}, **_SCENE_ALIASES, **phrases_of})
    phrases = [p for p in re.split(r"\band\b", rest) if p.strip()]
    objects = [_object(phrase, rng) for phrase in phrases]
    if not objects:
        raise CaptionError(f"the caption {text!r} names no object; choose from {', '.join(CATEGORIES)}")
    if len(objects) > 2:
        raise CaptionError(f"an image has one or two objects, the caption names {len(objects)}")
    scene_name, setting = sample_setting(rng, place or "studio")
    things = tuple(objects) if len(objects) == 1 else side_by_side(objects[0], objects[1])
    return SceneSpec(things, scene_name, setting, sample_camera(rng))


def _object(phrase: str, rng: random.Random) -> ObjectSpec:
    rest, material = _take(phrase, {m: m for m in MATERIALS})
    rest, category = _take(rest, {**{c: c for c in CATEGORIES}, **_ALIASES})
    adjectives = []
    while True:
        rest, adjective = _take(rest, {a: a for a in ADJECTIVES})
        if adjective is None:
            break
        adjectives.append(adjective)
    left = [w for w in rest.split() if w not in _FILLERS]
    if category is None:
        word = left[-1] if left else phrase.strip()
        raise CaptionError(f"unknown object {word!r}{_near(word, CATEGORIES)}; choose from {', '.join(CATEGORIES)}")
    if left:
        known = [*CATEGORIES, *MATERIALS, *ADJECTIVES, *SCENES]
        raise CaptionError(f"unknown word {left[0]!r} in {phrase.strip()!r}{_near(left[0], known)}")
    thing = sample_object(rng, category, material)
    return replace(thing, adjectives=tuple(adjectives))


_FILLERS = frozenset(
    ["a", "an", "the", "of", "made", "photo", "picture", "in", "on", "at", "under", "with", "near", "from", "by"]
)


def _take(text: str, names: dict[str, str]) -> tuple[str, str | None]:
    """Removes the longest name in the text (plurals, too) and returns (what is left, the name's meaning)."""
    for name in sorted(names, key=len, reverse=True):
        found = re.search(rf"\b{re.escape(name)}s?\b", text)
        if found:
            return text[: found.start()] + " " + text[found.end() :], names[name]
    return text, None


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
