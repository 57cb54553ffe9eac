"""All materials by name, and those without a name: `plain`, `photo_material` and `random_material`."""

from pops.toybox import looks_made, looks_nature  # noqa: F401  (they enter their materials)
from pops.toybox.looks import MATERIALS, Material, material, over, plain
from pops.toybox.looks_random import photo_material, random_material
from pops.toybox.surface import Paint, Surface

__all__ = [
    "MATERIALS",
    "Material",
    "Paint",
    "Surface",
    "material",
    "over",
    "photo_material",
    "plain",
    "random_material",
]
