"""The shapes of toybox: a table of categories, each a builder of signed-distance parts."""

from pops.toybox.objects import animals, vessels, machines, buildings, nature, things, garments  # noqa: F401, I001  (order = table)
from pops.toybox.objects.base import CATEGORIES, EVERY, GARMENTS, PAINTS, Category, Part

__all__ = ["CATEGORIES", "EVERY", "GARMENTS", "PAINTS", "Category", "Part"]
