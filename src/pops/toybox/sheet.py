"""A contact sheet of the whole world."""

from __future__ import annotations

import random
from dataclasses import replace

from PIL import Image, ImageDraw, ImageFont

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.draw import render
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.scenes import SCENES
from pops.toybox.world import SceneSpec, sample_camera, sample_object, sample_setting

COLUMNS = 10
INK, PAPER, QUIET = (40, 40, 46), (255, 255, 255), (120, 120, 130)


def contact_sheet(size: int = 128, seed: int = 0) -> Image.Image:
    """Draws every object, material, scene and adjective, each with its name; `size` pixels per image."""
    rng = random.Random(seed)
    names = list(CATEGORIES)
    groups = {
        "objects": [(n, _one(rng, category=n)) for n in CATEGORIES],
        "materials": [
            (n, _one(rng, category=names[(3 * k) % len(names)], material=n)) for k, n in enumerate(MATERIALS)
        ],
        "scenes": [(n, _one(rng, category=names[(7 * k) % len(names)], scene=n)) for k, n in enumerate(SCENES)],
        "adjectives": [
            (n, _one(rng, category=names[(11 * k) % len(names)], adjective=n)) for k, n in enumerate(ADJECTIVES)
        ],
    }
    cell, head, gap = size + 22, 44, 8
    rows = {g: -(-len(items) // COLUMNS) for g, items in groups.items()}
    width = COLUMNS * (size + gap) + gap
    page = Image.new("RGB", (width, sum(head + n * (cell + gap) for n in rows.values()) + gap), PAPER)
    pen, y = ImageDraw.Draw(page), 0
    title, small = ImageFont.load_default(22), ImageFont.load_default(12)
    for group, items in groups.items():
        pen.text((gap, y + 14), group, INK, font=title)
        y += head
        for k, (name, spec) in enumerate(items):
            x, top = gap + (k % COLUMNS) * (size + gap), y + (k // COLUMNS) * (cell + gap)
            page.paste(render(spec, size), (x, top))
            pen.text((x + size / 2, top + size + 11), name, QUIET, font=small, anchor="mm")
        y += rows[group] * (cell + gap)
    return page


def _one(
    rng: random.Random, category: str, material: str | None = None, scene: str = "studio", adjective: str | None = None
) -> SceneSpec:
    thing = sample_object(rng, category, material)
    if adjective:
        thing = replace(thing, adjectives=(adjective,))
    name, setting = sample_setting(rng, scene)
    return SceneSpec((thing,), name, setting, sample_camera(rng))
