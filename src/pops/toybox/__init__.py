"""toybox: a procedural world in which the true answer of every operator is known exactly.

Every image is drawn from a spec, a value that names all that the image depends on:

    from pops import toybox

    spec = toybox.parse_caption("a tiger teapot on a beach", seed=3)
    toybox.render(spec, size=256).save("teapot.png")
    toybox.triplet("texturing", seed=0)         # operands and true result

Pure PyTorch; imports nothing else of pops. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ADJECTIVES": "pops.toybox.adjectives",
    "CATEGORIES": "pops.toybox.objects",
    "MATERIALS": "pops.toybox.materials",
    "SCENES": "pops.toybox.scenes",
    "Camera": "pops.toybox.world",
    "CaptionError": "pops.toybox.words",
    "MaterialSpec": "pops.toybox.world",
    "ObjectSpec": "pops.toybox.world",
    "Oracle": "pops.toybox.oracle",
    "SceneSpec": "pops.toybox.world",
    "SwatchSpec": "pops.toybox.world",
    "Triplet": "pops.toybox.pairs",
    "captions": "pops.toybox.words",
    "contact_sheet": "pops.toybox.sheet",
    "family": "pops.toybox.pairs",
    "grid": "pops.toybox.pairs",
    "held_out": "pops.toybox.world",
    "parse_caption": "pops.toybox.words",
    "render": "pops.toybox.draw",
    "sample_scene": "pops.toybox.world",
    "shoot": "pops.toybox.shot",
    "triplet": "pops.toybox.pairs",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
