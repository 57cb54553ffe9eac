"""The table of scenes, the places where objects stand. Importing this fills SCENES."""

from pops.toybox.scenes import faraway, indoors, outdoors  # noqa: F401  (each enters its scenes into the table)
from pops.toybox.scenes.base import HORIZON, SCENES, Scene, Setting

__all__ = ["HORIZON", "SCENES", "Scene", "Setting"]
