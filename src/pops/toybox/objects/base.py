"""What a category of objects is, the table of them, and the colours of what is not made of the material.

Knows neither materials nor rays; the shapes themselves are in the files beside this one.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pops.toybox.surface import Float, Sdf

Shape = Mapping[str, Float]  # instance parameters by name
Natural = tuple[tuple[float, float, float], ...]

PAINTS: dict[str, tuple[float, float, float]] = {  # sRGB, 0..1
    "dark": (0.07, 0.06, 0.07),  # eyes, noses, tyres, holes
    "light": (0.96, 0.94, 0.88),  # snouts, eye whites, stems
    "glass": (0.30, 0.45, 0.58),
    "metal": (0.66, 0.68, 0.72),
    "accent": (0.80, 0.14, 0.16),  # ribbons, lamps, gems
    "orange": (0.95, 0.50, 0.10),  # beaks, carrots
    "wood": (0.42, 0.27, 0.16),
    "leaf": (0.25, 0.50, 0.20),
    "dough": (0.82, 0.60, 0.34),
    "coffee": (0.20, 0.10, 0.05),
    "glow": (1.00, 0.88, 0.50),  # lit windows and bulbs
}


@dataclass(frozen=True)
class Part:
    sdf: Sdf
    paint: str = "body"  # "body" takes the material, the others are names in PAINTS


Build = Callable[[Shape], Sequence[Part]]


@dataclass(frozen=True)
class Category:
    name: str
    build: Build
    ranges: Mapping[str, tuple[float, float]]  # shape parameters, uniform
    natural: Natural  # plausible plain body colours, sRGB 0..1
    yaw: tuple[float, float]  # allowed yaw, degrees
    animal: bool


CATEGORIES: dict[str, Category] = {}
GARMENTS: dict[str, Category] = {}  # what figures wear, beside the hat and the crown among CATEGORIES
EVERY: Mapping[str, Category] = ChainMap(CATEGORIES, GARMENTS)  # all that can be drawn


def category(
    name: str,
    *,
    natural: Natural,
    yaw: tuple[float, float],
    animal: bool = False,
    table: dict[str, Category] = CATEGORIES,
    **ranges: tuple[float, float],
) -> Callable[[Build], Build]:
    """Enters a builder in a table; the ranges are of its shape parameters."""

    def enter(build: Build) -> Build:
        table[name] = Category(name, build, ranges, natural, yaw, animal)
        return build

    return enter
