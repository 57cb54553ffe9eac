"""toybox: a procedural world whose every picture is a value, and where the true answer of every operator is known.

    spec = toybox.parse_caption("a tiger teapot on a beach", seed=3)
    toybox.render(spec, size=256).save("teapot.png")
    toybox.triplet("texturing", seed=0)         # operands and true result

Pure PyTorch; knows nothing of pops. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ADJECTIVES": "toybox.adjectives",
    "CATEGORIES": "toybox.objects",
    "MATERIALS": "toybox.materials",
    "SCENES": "toybox.scenes",
    "Camera": "toybox.world",
    "CaptionError": "toybox.words",
    "MaterialSpec": "toybox.world",
    "ObjectSpec": "toybox.world",
    "Oracle": "toybox.oracle",
    "SceneSpec": "toybox.world",
    "SwatchSpec": "toybox.world",
    "Triplet": "toybox.pairs",
    "captions": "toybox.words",
    "contact_sheet": "toybox.sheet",
    "draw": "toybox.draw",
    "family": "toybox.pairs",
    "grid": "toybox.pairs",
    "held_out": "toybox.world",
    "parse_caption": "toybox.words",
    "render": "toybox.draw",
    "sample_scene": "toybox.world",
    "shoot": "toybox.shot",
    "triplet": "toybox.pairs",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'toybox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
