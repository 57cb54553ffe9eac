"""All materials by name, with those that have none: `plain`, `photo_material` and `random_material`."""

from toybox import looks_made, looks_nature  # noqa: F401  (they enter their materials)
from toybox.looks import MATERIALS, Material, material, over, plain
from toybox.looks_random import photo_material, random_material
from toybox.surface import Paint, Surface

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
